"""Escalation: an answer that is not good enough is asked for again, one layer up. The loop, and who is asked next.

    answer --passed, unchecked--> it is the answer
       `--weak--> a layer above, and may it be asked? --no--> the best one so far
                        `--yes--> its answer, looked at as the first one was

The best of several weak answers is the one that a client can do most with (`checks.WORTH`); of equals the later one,
which comes from a higher layer. What stopped the search stands in the judgement:

    max_escalations   no_layer_above   max_layer   deadline   max_cost   quota   no_answer
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from proxy.candidates import Candidate, Escalated, Judgement, Rejection
from proxy.config.routing import LAYERS, Layer
from proxy.exchange import Attempt, UpstreamReply
from proxy.routing.checks import WORTH
from proxy.routing.collect import Collected

Obstacle = Literal["no_layer_above", "max_layer", "deadline", "max_cost", "quota", "no_answer"]
_BELOW_ALL: Final = -1
_BY_REJECTION: Final[Mapping[str, Obstacle]] = {
    "too_expensive": "max_cost", "beyond_budget": "quota", "above_max_layer": "max_layer",
}  # fmt: skip


class Way(Protocol):
    """How further answers are had; whoever has the money and the providers is one."""

    async def ask_above(self, layer: Layer | None) -> UpstreamReply | Obstacle:
        """Ask for an answer of a layer above; return its head, status 200, or why there is none."""

    async def look(self, reply: UpstreamReply) -> Collected:
        """Read an answer, the one of the last attempt, and judge it."""


async def escalate(weak: Collected, way: Way, judgement: Judgement, max_escalations: int) -> Collected:
    """Return the first answer of a higher layer that passes, else the best one. Notes the others' failure."""
    answers = [weak]
    while (latest := answers[-1]).weakness is not None:
        if len(judgement.escalated) >= max_escalations:
            judgement.because = "max_escalations"
            break
        origin = latest.attempt.candidate.layer
        reply = await way.ask_above(origin)
        if isinstance(reply, str):
            judgement.because = reply
            break
        answers.append(await way.look(reply))
        target = answers[-1].attempt.candidate.layer
        judgement.escalated.append(Escalated(origin, target, latest.weakness))
    best = max(reversed(answers), key=lambda answer: WORTH[answer.weakness])
    for answer in answers:
        if answer is not best:
            answer.attempt.failure = answer.weakness
            answer.reply.close()
    if best.weakness is None:
        judgement.because = None
    return best


def above(candidates: Sequence[Candidate], layer: Layer | None, attempts: Sequence[Attempt]) -> list[Candidate]:
    """Return the candidates of the layers above, the next layer first, without the models that were asked already."""
    asked = {(attempt.candidate.upstream, attempt.candidate.model) for attempt in attempts}
    rank = rank_of(layer)
    found = [one for one in candidates if rank_of(one.layer) > rank and (one.upstream, one.model) not in asked]
    return sorted(found, key=lambda one: rank_of(one.layer))


def none_above(rejected: Sequence[Rejection], layer: Layer | None) -> Obstacle:
    """Return why no layer above is among the candidates: what was passed over there may say so."""
    found = [_BY_REJECTION.get(one.why) for one in rejected if rank_of(one.layer) > rank_of(layer)]
    return next((why for why in found if why is not None), "no_layer_above")


def rank_of(layer: Layer | None) -> int:
    """Return the place of a layer; of none: below all."""
    return _BELOW_ALL if layer is None else LAYERS.index(layer)
