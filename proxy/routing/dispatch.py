"""Phase 6: ask a provider. The one place that makes attempts.

An `Attempt` is appended before anything is sent, so a request cancelled at any point still shows what was begun. An
attempt ends here only if no answer came; otherwise the relay reads on and the pipeline ends it. Nothing is ever sent
twice: whether a failed POST was executed cannot be known, and the official SDKs repeat it themselves.

Source: RFC 9110 section 9.2.2 (idempotent methods and automatic retries).
"""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from proxy.errors import NoUpstreamAvailable, UpstreamFailed
from proxy.exchange import Attempt, RoutePlan, UpstreamReply

Reply = TypeVar("Reply", bound=UpstreamReply)
SendAttempt = Callable[[Attempt], Awaitable[Reply]]
"""Send the exchange's request to `attempt.candidate`; sets `attempt.sent` when a byte may have left."""


async def dispatch(plan: RoutePlan, attempts: list[Attempt], send: SendAttempt[Reply]) -> Reply:
    """Return the head of the provider's answer; the attempt it belongs to is the last of `attempts`.

    Raises:
        UpstreamFailed: no answer came.
        NoUpstreamAvailable: nothing could be asked.
    """
    attempt = Attempt(index=len(attempts), candidate=plan.candidates[0], started=time.monotonic())
    attempts.append(attempt)
    try:
        reply = await send(attempt)
    except (UpstreamFailed, NoUpstreamAvailable) as error:
        attempt.error = error
        attempt.ended = time.monotonic()
        raise
    attempt.headers_at = time.monotonic()
    attempt.status = reply.status
    attempt.request_id = _request_id(reply)
    return reply


def _request_id(reply: UpstreamReply) -> str | None:
    for name, value in reply.headers:
        if name.lower() == b"x-request-id":
            return value.decode("latin-1")
    return None
