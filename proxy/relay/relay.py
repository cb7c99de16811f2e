"""Phase 7: bring the provider's answer to the client by the relay that fits its media type.

The choice looks at the answer, not at the request: a request for a stream may be answered by a JSON error.
"""

from collections.abc import Awaitable

from proxy.config.schema import Config
from proxy.exchange import Downstream
from proxy.relay.answer import Answer
from proxy.relay.bounded import can_be_bounded, relay_bounded
from proxy.relay.buffered import relay_buffered
from proxy.relay.raw import relay_raw
from proxy.relay.sse import relay_events


def relay(answer: Answer, downstream: Downstream, config: Config) -> Awaitable[None]:
    """Choose how head and body are delivered; return what delivers them when it is awaited.

    Awaiting it raises:
        UpstreamFailed: the provider broke off.
        ClientDisconnected: the client left or stopped reading.
    """
    if not answer.has_body or (answer.length == 0 and not answer.is_events):
        return _relay_empty(answer, downstream)
    if answer.is_events:
        event_bytes, after_end_s = config.limits.event_bytes, config.timeouts.after_end_s
        if answer.allowance is None or not can_be_bounded(answer):
            return relay_events(answer, downstream, event_bytes=event_bytes, after_end_s=after_end_s)
        return relay_bounded(answer, answer.allowance, downstream, event_bytes=event_bytes, after_end_s=after_end_s)
    if answer.is_json:
        inspect_bytes, hold_s = config.limits.inspect_bytes, config.timeouts.answer_hold_s
        return relay_buffered(answer, downstream, inspect_bytes=inspect_bytes, hold_s=hold_s)
    return relay_raw(answer, downstream)


async def _relay_empty(answer: Answer, downstream: Downstream) -> None:
    """Send a head without a body; a HEAD answer keeps the length that it announces. The head is the end: seal first."""
    answer.attempt.meter.terminated = True
    answer.seal()
    await downstream.start(answer.status, answer.reply.reason, answer.headers, answer.length)
    await downstream.finish()
