"""Escalation: a weak answer is requested again, one layer up. The loop, and which candidates come next.

    answer --passed, unchecked--> it is delivered
       `--weak--> a higher layer, if one may be asked --no--> the best answer so far
                        `--yes--> its answer, checked like the first

The best of several weak answers is the most useful one for a client (`checks.WORTH`); among equals the later one, which
comes from a higher layer. The judgement says why the search ended:

    max_escalations   no_layer_above   max_layer   deadline   max_cost   quota   no_answer
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from proxy.config.routing import LAYERS, Layer
from proxy.exchange import Attempt, UpstreamReply
from proxy.nouns.candidates import Candidate, Escalated, Judgement, Rejection
from proxy.routing.checks import WORTH
from proxy.routing.collect import Collected

Obstacle = Literal["no_layer_above", "max_layer", "deadline", "max_cost", "quota", "no_answer"]
_BELOW_ALL: Final = -1
_BY_REJECTION: Final[Mapping[str, Obstacle]] = {
    "too_expensive": "max_cost", "beyond_budget": "quota", "above_max_layer": "max_layer",
}  # fmt: skip


class HigherLayers(Protocol):
    """Obtains further answers; implemented where budget and providers are known."""

    async def ask_above(self, layer: Layer | None) -> UpstreamReply | Obstacle:
        """Request an answer from a higher layer; return its head, status 200, or why there is none."""

    async def read_and_check(self, reply: UpstreamReply) -> Collected:
        """Read and check the answer of the last attempt."""


async def escalate(weak: Collected, layers: HigherLayers, judgement: Judgement, max_escalations: int) -> Collected:
    """Return the first answer of a higher layer that passes, else the best one. Records the failure of the others."""
    answers = [weak]
    while (latest := answers[-1]).weakness is not None:
        if len(judgement.escalated) >= max_escalations:
            judgement.because = "max_escalations"
            break
        origin = latest.attempt.candidate.layer
        reply = await layers.ask_above(origin)
        if isinstance(reply, str):
            judgement.because = reply
            break
        answers.append(await layers.read_and_check(reply))
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
    """Return the candidates of higher layers, the next layer first, without models that were already asked."""
    asked = {(attempt.candidate.upstream, attempt.candidate.model) for attempt in attempts}
    rank = rank_of(layer)
    found = [one for one in candidates if rank_of(one.layer) > rank and (one.upstream, one.model) not in asked]
    return sorted(found, key=lambda one: rank_of(one.layer))


def none_above(rejected: Sequence[Rejection], layer: Layer | None) -> Obstacle:
    """Return why no candidate is above the layer, according to the rejections there."""
    found = [_BY_REJECTION.get(one.why) for one in rejected if rank_of(one.layer) > rank_of(layer)]
    return next((why for why in found if why is not None), "no_layer_above")


def rank_of(layer: Layer | None) -> int:
    """Return the rank of a layer; without a layer, below all."""
    return _BELOW_ALL if layer is None else LAYERS.index(layer)
