"""A client that leaves or does not read: the provider stops at once, what was used is recorded, memory stays flat."""

import asyncio
import time

import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.judge import eventually
from tests.fakes.provider import Call, Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import SILENCE, chunk, script, sse_head
from tests.fakes.wire import Wire, post

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi there, tell me a story"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"once upon a time there was"}}]}\n\n'


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_stream_when_the_client_leaves_then_the_provider_is_stopped_and_usage_estimated(
    provider: Provider, sidegate: Sidegate, case: str, how: str
) -> None:
    provider.on(case, script(sse_head(), chunk(EVENT), chunk(EVENT), SILENCE))
    async with await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", STREAM, case=case))
        reply = await wire.head()
        await wire.until(EVENT[-30:])
        left = time.monotonic()
        if how == "resets":
            wire.reset()
    (seen,) = provider.seen(case)
    assert eventually(lambda: seen.closed_at, 2) - left < 1
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("client_abort", "estimated")
    assert trace["inputTokens"] > 0
    assert trace["outputTokens"] > 0
    assert trace["totalCost"] > 0


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_request_when_the_client_leaves_before_the_answer_then_the_provider_is_stopped(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes
) -> None:
    provider.on(case, script(SILENCE))
    async with await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", body, f"X-Sidegate-User: {case}", case=case))
        (seen,) = await asyncio.to_thread(eventually, lambda: provider.seen(case))
        left = time.monotonic()
    assert eventually(lambda: seen.closed_at, 2) - left < 1
    (found,) = eventually(lambda: sidegate.api(f"/v1/traces?userId={case}")[1]["traces"])
    assert found["outcome"] == "client_abort"


async def test_upload_when_the_client_leaves_half_way_then_the_provider_never_sees_a_whole_body(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    head = post("/v1/files", b"", case=case).replace(b"application/json", b"application/octet-stream")
    async with await Wire.open(sidegate.address) as wire:
        await wire.send(head.replace(b"Content-Length: 0", b"Content-Length: 1000000") + b"x" * 200_000)
        (seen,) = await asyncio.to_thread(eventually, lambda: provider.seen(case))
    eventually(lambda: seen.closed_at, 2)
    assert not seen.body_complete


async def test_streams_when_readers_stall_then_memory_and_the_provider_stand_still(
    provider: Provider, launch: Launch, case: str
) -> None:
    # Half a million events pass until every buffer is full; what scanning them costs is another matter.
    sidegate = launch(ENABLE_OUTPUT_SCANNING="false")
    sent = [0] * 12

    def endless(index: int) -> object:
        async def perform(call: Call) -> None:
            await call.body()
            await call.send(sse_head())
            block = chunk(EVENT * 200)
            while True:
                await call.send(block)
                sent[index] += len(block)

        return perform

    before = sidegate.rss_bytes()
    wires = []
    for index in range(len(sent)):
        provider.on(f"{case}-{index}", endless(index))  # type: ignore[arg-type]
        wire = await Wire.open(sidegate.address, receive_buffer=4096)
        await wire.send(post("/v1/chat/completions", STREAM, case=f"{case}-{index}"))
        wires.append(wire)

    def standing() -> bool:
        earlier = list(sent)
        time.sleep(0.4)
        return sent == earlier and all(sent)

    try:
        await asyncio.to_thread(eventually, standing, 10)
        # About 1 MiB each and the process's own warming up: 22 to 29 MB were measured.
        assert sidegate.rss_bytes() - before < len(sent) * 3_000_000
        assert max(sent) < 12_000_000
    finally:
        for wire in wires:
            await wire.__aexit__()
    calls = [provider.seen(f"{case}-{index}")[0] for index in range(len(sent))]
    await asyncio.to_thread(eventually, lambda: all(call.closed_at for call in calls), 10)


async def test_stream_when_the_reader_is_slow_then_nothing_is_lost(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    pieces = [b'data: {"choices":[{"index":0,"delta":{"content":"%06d"}}]}\n\n' % n for n in range(20_000)]
    provider.on(case, script(sse_head(), *(chunk(piece) for piece in pieces), b"0\r\n\r\n"))
    async with asyncio.timeout(20), await Wire.open(sidegate.address, receive_buffer=8192) as wire:
        await wire.send(post("/v1/chat/completions", STREAM, case=case))
        await asyncio.sleep(0.5)
        reply = await wire.reply()
    assert reply.body == b"".join(pieces)


async def test_stream_when_a_reader_stalls_for_too_long_then_it_is_cut(
    provider: Provider, launch: Launch, case: str
) -> None:
    # Scanning so many events would take longer than the wait that this is about.
    proxy = launch(SIDEGATE__TIMEOUTS__WRITE_STALL_S="0.7", ENABLE_OUTPUT_SCANNING="false")
    provider.on(case, script(sse_head(), *[chunk(EVENT * 500)] * 600))
    async with await Wire.open(proxy.address, receive_buffer=4096) as wire:
        await wire.send(post("/v1/chat/completions", STREAM, case=case))
        reply = await wire.head()
        (seen,) = provider.seen(case)
        await asyncio.to_thread(eventually, lambda: seen.closed_at, 15)
        assert await asyncio.wait_for(wire.ended(), 5) in ("cut", "reset")
    assert proxy.trace(reply.trace_id)["outcome"] == "client_abort"


async def test_descriptors_when_many_clients_came_and_went_then_none_is_left(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    async def abort(index: int) -> None:
        provider.on(f"{case}-{index}", script(sse_head(), chunk(EVENT), SILENCE))
        async with await Wire.open(sidegate.address) as wire:
            await wire.send(post("/v1/chat/completions", STREAM, case=f"{case}-{index}"))
            await wire.until(b"time")

    before = sidegate.descriptors()
    await asyncio.gather(*(abort(index) for index in range(60)))
    await asyncio.to_thread(eventually, lambda: sidegate.descriptors() <= before + 5, 10)
    in_flight = [value for name, value in sidegate.metrics().items() if "in_flight" in name]
    assert in_flight and set(in_flight) == {0.0}
