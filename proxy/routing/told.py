"""What the client is told about the way of a request that we routed, in headers of the answer.

x-sidegate-attempts   calls that were made for it
x-sidegate-upstream   the provider that answered
x-sidegate-layer      the layer of the model that answered, where one was chosen
x-sidegate-model      the model that was asked, by the name that clients use
"""

from collections.abc import Sequence

from proxy.exchange import Attempt, Header, Headers


def told(attempt: Attempt, attempts: Sequence[Attempt]) -> Headers:
    """Return the headers for an answer that `attempt` brought."""
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
