"""Phase 7: deliver the provider's answer to the client with the relay for its media type.

The answer decides, not the request: a request for a stream may be answered with a JSON error.
"""

from collections.abc import Awaitable

from proxy.config.schema import Config
from proxy.errors import UpstreamFailed
from proxy.exchange import Downstream
from proxy.openai.deltas import has_text
from proxy.relay.answer import Answer
from proxy.relay.bounded import can_be_bounded, is_readable, relay_bounded
from proxy.relay.buffered import relay_buffered
from proxy.relay.collected import relay_collected
from proxy.relay.mislabelled import look, may_be_mislabelled
from proxy.relay.raw import relay_raw
from proxy.relay.readable import fits, scanner_of
from proxy.relay.scanned_body import relay_scanned_body
from proxy.relay.scanned_text import relay_scanned_text
from proxy.relay.sse import relay_events


def relay(answer: Answer, downstream: Downstream, config: Config) -> Awaitable[None]:
    """Choose how to deliver head and body; return an awaitable that does so.

    Raises:
        PolicyViolation: the answer cannot be scanned, and the policy requires that.
        UpstreamFailed: the answer must be metered and cannot be read.

    Awaiting it raises:
        UpstreamFailed: the provider's body was cut.
        ClientDisconnected: the client disconnected or stopped reading.
        PolicyViolation: the policy forbids the content of the answer.
    """
    if not answer.has_body or (answer.length == 0 and not answer.is_events):
        return _relay_empty(answer, downstream)
    if answer.is_counted:
        return relay_collected(answer, downstream)
    if may_be_mislabelled(answer):
        return _relay_after_look(answer, downstream, config)
    return _relay_as_labelled(answer, downstream, config)


async def _relay_after_look(answer: Answer, downstream: Downstream, config: Config) -> None:
    await look(answer)
    await _relay_as_labelled(answer, downstream, config)


def _relay_as_labelled(answer: Answer, downstream: Downstream, config: Config) -> Awaitable[None]:
    limits, timeouts = config.limits, config.timeouts
    if answer.is_events:
        return _relay_stream(answer, downstream, event_bytes=limits.event_bytes, after_end_s=timeouts.after_end_s)
    if (scanner := scanner_of(answer)) is not None:
        if answer.is_json or (fits(answer, limits.event_bytes) and not answer.begins_as_text):
            return relay_scanned_body(answer, scanner, downstream, limits, hold_s=timeouts.answer_hold_s)
        return relay_scanned_text(answer, scanner, downstream)
    if answer.is_json:
        return relay_buffered(answer, downstream, inspect_bytes=limits.inspect_bytes, hold_s=timeouts.answer_hold_s)
    return relay_raw(answer, downstream)


def _relay_stream(answer: Answer, downstream: Downstream, *, event_bytes: int, after_end_s: float) -> Awaitable[None]:
    scanner = scanner_of(answer)
    if answer.allowance is not None and has_text(answer.dialect) and not is_readable(answer):
        raise UpstreamFailed(
            "The provider sent a stream in an encoding that it was not offered; it cannot be kept within the quota.",
            code="upstream_bad_encoding",
        )
    may_end_it = scanner is not None and (scanner.edits or scanner.unscannable == "deny")
    allowance = answer.allowance if can_be_bounded(answer) else None
    if may_end_it or allowance is not None:
        return relay_bounded(answer, allowance, downstream, event_bytes=event_bytes, after_end_s=after_end_s)
    return relay_events(answer, downstream, event_bytes=event_bytes, after_end_s=after_end_s)


async def _relay_empty(answer: Answer, downstream: Downstream) -> None:
    """Send a head without a body; a HEAD response keeps its announced length. Seal first, as nothing follows."""
    answer.attempt.meter.terminated = True
    answer.seal()
    await downstream.start(answer.status, answer.reply.reason, answer.headers, answer.length)
    await downstream.finish()
