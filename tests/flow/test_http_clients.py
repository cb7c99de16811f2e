"""Clients of every habit: old, eager, slow and polite ones, and those that keep their connections."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.judge import assert_error, eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import SILENCE, chunk, script, sse_head, whole
from tests.fakes.wire import Cut, Wire, exchange, post, request

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'


@pytest.fixture(scope="module")
def strict(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    """A proxy with little patience."""
    settings = {
        "SIDEGATE__SERVER__KEEPALIVE_S": "1.0",
        "SIDEGATE__LIMITS__BODY_IDLE_S": "0.8",
        "SIDEGATE__LIMITS__CONCURRENT_REQUESTS": "3",
        "SIDEGATE__LIMITS__CONNECTIONS": "6",
    }
    running = Sidegate(tmp_path_factory.mktemp("strict"), provider.base_url, session_database_url, settings).start()
    yield running
    running.stop()


async def test_client_when_it_expects_100_continue_then_it_gets_it_before_sending(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    data = post("/v1/chat/completions", CHAT, "Expect: 100-continue", case=case)
    head, body = data[: -len(CHAT)], data[-len(CHAT) :]
    async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
        await wire.send(head)
        assert (await wire.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await wire.send(body)
        reply = await wire.reply()
    assert reply.status == 200
    assert provider.seen(case)[0].values(b"expect") == []


async def test_client_when_http_1_0_then_answers_end_with_the_connection(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(whole(b"{}")), script(sse_head(), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"))
    for body, expected in ((CHAT, b"{}"), (CHAT[:-1] + b',"stream":true}', b"data: [DONE]\n\n")):
        data = post("/v1/chat/completions", body, case=case).replace(b" HTTP/1.1", b" HTTP/1.0", 1)
        async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
            await wire.send(data)
            reply = await wire.reply()
            assert (reply.status, reply.body) == (200, expected)
            assert reply.value("transfer-encoding") is None
            assert await wire.ended() == "cut"


async def test_client_when_it_pipelines_then_answers_come_in_order(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    names = [f"{case}-{index}" for index in range(8)]
    for index, name in enumerate(names):
        provider.on(name, script(0.05 if index == 0 else 0.0, whole(b'{"n":%d}' % index)))
    async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
        await wire.send(b"".join(post("/v1/chat/completions", CHAT, case=name) for name in names))
        bodies = [(await wire.reply()).body for _ in names]
    assert bodies == [b'{"n":%d}' % index for index in range(8)]


async def test_client_when_it_keeps_its_connection_then_errors_of_ours_do_not_end_it(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
        for data, status in (
            (post("/v1/chat/completions", b'{"broken"', case=case), 400),
            (post("/v1/chat/completions", CHAT, case=case), 200),
            (request("GET", "/nowhere", case=case), 404),
            (request("GET", "/v1/models", case=case), 200),
        ):
            await wire.send(data)
            assert (await wire.reply("GET")).status == status


async def test_client_when_it_asks_to_close_then_the_connection_ends_after_the_answer(
    sidegate: Sidegate, case: str
) -> None:
    async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", CHAT, "Connection: close", case=case))
        assert (await wire.reply()).ending == "complete"
        assert await wire.ended() == "cut"


async def test_client_when_its_bytes_trickle_then_the_request_is_understood(sidegate: Sidegate, case: str) -> None:
    async with asyncio.timeout(10), await Wire.open(sidegate.address) as wire:
        for byte in post("/v1/chat/completions", CHAT, case=case):
            await wire.send(bytes([byte]))
        assert (await wire.reply()).status == 200


async def test_client_when_it_ends_its_sending_side_then_it_counts_as_gone(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    """Nothing tells it from a client that has closed, and whose answer nobody wants to pay for."""
    provider.on(case, script(SILENCE))
    async with asyncio.timeout(5), await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", CHAT, case=case))
        await asyncio.to_thread(eventually, lambda: provider.seen(case))
        wire.writer.write_eof()
        with pytest.raises(Cut):
            await wire.reply()
    (seen,) = provider.seen(case)
    await asyncio.to_thread(eventually, lambda: seen.closed_at, 2)


async def test_client_when_silent_or_dripping_a_head_then_it_is_cut(strict: Sidegate) -> None:
    async def cut_after(data: bytes) -> float:
        async with await Wire.open(strict.address) as wire:
            started = time.monotonic()
            ending = asyncio.create_task(wire.ended())
            for byte in data:
                if ending.done():
                    break
                wire.writer.write(bytes([byte]))
                await asyncio.sleep(0.2)
            await asyncio.wait_for(ending, 6)
            return time.monotonic() - started

    silent, dripping = await asyncio.gather(cut_after(b""), cut_after(b"POST /v1/chat/completions HTTP/1.1\r\n"))
    assert silent < 4
    assert dripping < 4


async def test_client_when_its_body_stalls_then_408(strict: Sidegate, case: str) -> None:
    data = post("/v1/chat/completions", CHAT, case=case)
    # Behind an early answer, the server reads on until nothing comes for 5 s (`ingress.lingering`).
    async with asyncio.timeout(15), await Wire.open(strict.address) as wire:
        await wire.send(data[:-10])
        assert_error(await wire.reply(), 408)
        assert await wire.ended() in ("cut", "reset")


async def test_client_when_it_is_idle_between_requests_then_its_connection_is_closed(
    strict: Sidegate, case: str
) -> None:
    async with asyncio.timeout(6), await Wire.open(strict.address) as wire:
        await wire.send(post("/v1/chat/completions", CHAT, case=case))
        assert (await wire.reply()).status == 200
        assert await wire.ended() == "cut"


async def test_requests_when_too_many_at_once_then_503_and_the_rest_are_served(
    provider: Provider, strict: Sidegate, case: str
) -> None:
    gate = provider.gate()
    provider.on(case, script(gate, whole(b"{}")))
    data = post("/v1/chat/completions", CHAT, case=case)
    async with asyncio.timeout(8):
        running = [asyncio.create_task(exchange(strict.address, data)) for _ in range(3)]
        while len(provider.seen(case)) < 3:
            await asyncio.sleep(0.01)
        refused = await exchange(strict.address, data)
        gate.open()
        served = await asyncio.gather(*running)
    error = assert_error(refused, 503)
    assert error["type"] == "service_unavailable_error"
    assert refused.value("retry-after") is not None
    assert [reply.status for reply in served] == [200, 200, 200]
    assert (await exchange(strict.address, data)).status == 200


async def test_connections_when_too_many_then_new_ones_are_refused_and_room_comes_back(
    strict: Sidegate, case: str
) -> None:
    async with asyncio.timeout(8):
        held = [await Wire.open(strict.address) for _ in range(6)]
        refused = await exchange(strict.address, post("/v1/chat/completions", CHAT, case=case))
        for wire in held:
            await wire.__aexit__()
        await asyncio.sleep(0.1)
        served = await exchange(strict.address, post("/v1/chat/completions", CHAT, case=case))
    assert (refused.status, served.status) == (503, 200)


async def test_requests_when_the_provider_has_no_free_connection_then_503(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(SIDEGATE__UPSTREAM__MAX_CONNECTIONS="1", SIDEGATE__TIMEOUTS__POOL_S="0.3")
    provider.on(case, script(SILENCE))
    async with asyncio.timeout(8), await Wire.open(proxy.address) as wire:
        await wire.send(post("/v1/chat/completions", CHAT, case=case))
        while not provider.seen(case):
            await asyncio.sleep(0.01)
        reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case))
    assert_error(reply, 503, "upstream_pool_timeout")
