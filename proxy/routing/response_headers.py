"""Response headers that describe how a request was routed.

x-sidegate-attempts   number of attempts
x-sidegate-upstream   the provider that answered
x-sidegate-layer      the layer of the model that answered, if one was chosen
x-sidegate-model      the model that answered, by the name that clients use

If answers are checked before delivery:

x-sidegate-check        passed | unchecked | a weakness; because=..
x-sidegate-escalated    L0>L1; because=empty, L1>L2; because=cut
x-sidegate-cross-check  agreed | arbitrated | escalated | disputed | unchecked; because=..
"""

from collections.abc import Sequence

from proxy.exchange import Attempt, Header, Headers, Judgement


def route_headers(attempt: Attempt, attempts: Sequence[Attempt]) -> Headers:
    """Return the headers for the answer of `attempt`."""
    candidate = attempt.candidate
    headers: list[Header] = [
        (b"x-sidegate-attempts", b"%d" % len(attempts)),
        (b"x-sidegate-upstream", candidate.upstream.encode()),
    ]
    if candidate.layer is not None:
        headers.append((b"x-sidegate-layer", candidate.layer.encode()))
    if candidate.model is not None and candidate.model.isascii():
        headers.append((b"x-sidegate-model", candidate.model.encode()))
    return headers


def check_headers(judgement: Judgement) -> Headers:
    """Return the headers for an answer that was checked."""
    headers: list[Header] = []
    if judgement.check is not None:
        headers.append((b"x-sidegate-check", _because(judgement.check, judgement.because)))
    if judgement.escalated:
        steps = [_because(f"{one.origin}>{one.target}", one.because) for one in judgement.escalated]
        headers.append((b"x-sidegate-escalated", b", ".join(steps)))
    if judgement.cross_check is not None:
        headers.append((b"x-sidegate-cross-check", _because(judgement.cross_check, judgement.cross_because)))
    return headers


def _because(what: str, why: str | None) -> bytes:
    return (what if why is None else f"{what}; because={why}").encode()
