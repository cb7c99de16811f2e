"""Cross-check: a second model reviews an answer; if it objects, a third arbitrates.

    review --accept--> agreed
       `--reject--> arbitrate --accept--> arbitrated: the answer stands, two to one
                         `--reject, or no arbiter--> disputed: a higher layer is asked (`escalate`)

Reviewers are other models of the answer's layer, then of the layers above, then below; a model that was involved before
is not asked again.

Failure mode: if a reviewer fails, is late or cannot be understood, the answer is delivered unchecked. An arbiter's
failure leaves the dispute open.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal, Protocol

from proxy.config.routing import Layer
from proxy.nouns.candidates import Candidate
from proxy.routing.collect import Collected
from proxy.routing.escalate import rank_of
from proxy.routing.review import Verdict

Result = Literal["agreed", "arbitrated", "disputed", "unchecked"]
NoOpinion = Literal[
    "no_other_model", "deadline", "max_cost", "quota", "memory", "policy", "failed", "late", "unreadable"
]
_ABOVE_ALL: Final = 100


class Reviewers(Protocol):
    """Asks reviewers; implemented where budget and providers are known."""

    async def ask(self, answer: Collected, objection: Verdict | None) -> Verdict | NoOpinion:
        """Ask the next reviewer. `objection`: the previous reviewer's, to be arbitrated."""


async def cross_check(answer: Collected, reviewers: Reviewers) -> tuple[Result, NoOpinion | None]:
    """Return the result for an answer, and why it is unknown."""
    review = await reviewers.ask(answer, None)
    if isinstance(review, str):
        return "unchecked", review
    if review.opinion == "accept":
        return "agreed", None
    decision = await reviewers.ask(answer, review)
    is_settled = isinstance(decision, Verdict) and decision.opinion == "accept"
    return ("arbitrated" if is_settled else "disputed"), None


def others(candidates: Sequence[Candidate], layer: Layer | None, heard: Collection[str | None]) -> list[Candidate]:
    """Return the candidates for a further opinion, nearest layer first. `heard`: models already involved."""
    rank = rank_of(layer)
    return sorted((one for one in candidates if one.model not in heard), key=lambda one: _distance(one, rank))


def _distance(candidate: Candidate, rank: int) -> int:
    distance = rank_of(candidate.layer) - rank
    return distance if distance >= 0 else _ABOVE_ALL - distance
