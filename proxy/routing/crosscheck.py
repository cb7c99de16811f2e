"""Cross-check: a second model reviews an answer, a third arbitrates where the second objects.

    review --accept--> agreed
       `--reject--> arbitrate --accept--> arbitrated: the answer stands, two to one
                         `--reject, or nobody to ask--> disputed: a layer above is asked (`escalate`)

Reviewers are other models of the answer's layer, then those of the layers above, then below: none is asked that has had
a part already.

Failure mode: a reviewer that fails, is late or says nothing that can be read leaves the answer unchecked, and it is
delivered all the same. An arbiter that fails settles nothing.
"""

from collections.abc import Collection, Sequence
from typing import Final, Literal, Protocol

from proxy.candidates import Candidate
from proxy.config.routing import Layer
from proxy.routing.collect import Collected
from proxy.routing.escalate import rank_of
from proxy.routing.review import Verdict

Result = Literal["agreed", "arbitrated", "disputed", "unchecked"]
NoOpinion = Literal[
    "no_other_model", "deadline", "max_cost", "quota", "memory", "policy", "failed", "late", "unreadable"
]
_ABOVE_ALL: Final = 100


class Reviewers(Protocol):
    """Those who can be asked; whoever has the money and the providers knows them."""

    async def ask(self, answer: Collected, objection: Verdict | None) -> Verdict | NoOpinion:
        """Ask the next one. `objection`: of the one before, who is arbitrated."""


async def cross_check(answer: Collected, reviewers: Reviewers) -> tuple[Result, NoOpinion | None]:
    """Return what became of an answer, and why nobody knows."""
    review = await reviewers.ask(answer, None)
    if isinstance(review, str):
        return "unchecked", review
    if review.opinion == "accept":
        return "agreed", None
    decision = await reviewers.ask(answer, review)
    is_settled = isinstance(decision, Verdict) and decision.opinion == "accept"
    return ("arbitrated" if is_settled else "disputed"), None


def others(candidates: Sequence[Candidate], layer: Layer | None, heard: Collection[str | None]) -> list[Candidate]:
    """Return the candidates that can give a further opinion, nearest layer first. `heard`: models with a part in it."""
    rank = rank_of(layer)
    return sorted((one for one in candidates if one.model not in heard), key=lambda one: _distance(one, rank))


def _distance(candidate: Candidate, rank: int) -> int:
    distance = rank_of(candidate.layer) - rank
    return distance if distance >= 0 else _ABOVE_ALL - distance
