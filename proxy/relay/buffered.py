"""Relay of JSON answers: held until complete, so that they are settled and recorded before a single write.

Holding is limited twice. An answer larger than `inspect_bytes` is streamed, with only its two ends inspected. An answer
that is incomplete after `answer_hold_s` is streamed as well: some providers send white space to keep long calls alive,
and the client should see it.
"""

import asyncio
from functools import partial
from typing import Final

from proxy.event_loop.off_loop import decoded_off_loop, joined
from proxy.exchange import Downstream
from proxy.openai.response import inspect
from proxy.relay.answer import Answer
from proxy.relay.inspector import BodyInspector

_SMALL_BYTES: Final = 65_536
"""Larger ones are decoded in a thread: the slowest JSON of this size takes 4 ms."""


async def relay_buffered(answer: Answer, downstream: Downstream, *, inspect_bytes: int, hold_s: float) -> None:
    """Send one JSON document and read model, usage and tool calls from it.

    Raises:
        UpstreamFailed: the provider's body was cut.
        ClientDisconnected: the client disconnected.
    """
    reply = answer.reply
    first = await reply.read()
    if reply.complete and not answer.content_encoding and len(first) <= inspect_bytes:
        answer.count(first)
        note = partial(inspect, answer.dialect, first, answer.attempt.meter)
        if len(first) <= _SMALL_BYTES:
            note()
        else:
            await decoded_off_loop(note)
        answer.seal()
        await downstream.send(reply.status, reply.reason, answer.headers, first)
    else:
        await _send_slowly(answer, downstream, first, inspect_bytes, hold_s)


async def _send_slowly(answer: Answer, downstream: Downstream, first: bytes, inspect_bytes: int, hold_s: float) -> None:
    reply = answer.reply
    inspector = BodyInspector(answer.dialect, answer.content_encoding, inspect_bytes)
    held, complete = await _hold(answer, first, inspect_bytes, hold_s)
    for piece in held:
        _count(answer, inspector, piece)
    if complete:
        body = await joined(held)  # before the record: nothing may end the request between that and the answer
        await conclude(answer, inspector)
        await downstream.send(reply.status, reply.reason, answer.headers, body)
        return
    await send_on(answer, downstream, inspector, held)


async def send_on(
    answer: Answer, downstream: Downstream, inspector: BodyInspector, held: list[bytes], *, is_started: bool = False
) -> None:
    """Send what was `held` and counted, then the rest as it arrives. `is_started`: the head has been sent."""
    reply = answer.reply
    if not is_started:
        await downstream.start(reply.status, reply.reason, answer.headers, answer.length)
    sent = 0
    for piece in held:
        sent += len(piece)
        if sent == answer.length:
            await conclude(answer, inspector)
        await downstream.write(piece)
    while piece := await reply.read():
        _count(answer, inspector, piece)
        sent += len(piece)
        if sent == answer.length:
            await conclude(answer, inspector)
        await downstream.write(piece)
    await conclude(answer, inspector)
    await downstream.finish()


async def _hold(answer: Answer, first: bytes, limit_bytes: int, hold_s: float) -> tuple[list[bytes], bool]:
    """Return what arrived within the limits, and whether the answer is complete."""
    reply, held, size = answer.reply, [first], len(first)
    try:
        async with asyncio.timeout(hold_s):
            while size <= limit_bytes or reply.complete:
                piece = await reply.read()
                if not piece:
                    return held, True
                held.append(piece)
                size += len(piece)
    except TimeoutError:
        pass
    return held, False


def _count(answer: Answer, inspector: BodyInspector, piece: bytes) -> None:
    answer.count(piece)
    inspector.feed(piece)


async def conclude(answer: Answer, inspector: BodyInspector) -> None:
    """Read what was inspected of a complete answer, and seal it."""
    meter = answer.attempt.meter
    meter.terminated = True
    if inspector.kept_bytes <= _SMALL_BYTES:
        inspector.finish(meter)
    else:
        await decoded_off_loop(partial(inspector.finish, meter))
    answer.seal()
