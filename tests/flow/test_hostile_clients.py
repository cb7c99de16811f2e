"""Clients that take without giving: what they hold is bounded in time and memory."""

import asyncio

from tests.fakes.fixtures import Launch
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.steps import SILENCE, script
from tests.fakes.websocket import BINARY, Frame, Socket, connect, socket_script
from tests.fakes.wire import Wire, post

MESSAGE = Frame(BINARY, bytes(65_536))


async def flood(socket: Socket) -> None:
    """Send until the other side is gone."""
    while True:
        await socket.send(MESSAGE)


async def test_socket_when_its_client_never_reads_then_it_is_cut(provider: Provider, launch: Launch, case: str) -> None:
    proxy = launch(SIDEGATE__TIMEOUTS__WRITE_STALL_S="0.5")
    provider.on(case, socket_script(flood))
    before = proxy.descriptors()
    opened = [await connect(proxy.address, "/v1/realtime?model=m", case=case) for _ in range(8)]
    await asyncio.to_thread(eventually, lambda: all(seen.closed_at for seen in provider.seen(case)), 10)
    # Up to four connections to PostgreSQL may have come meanwhile; the clients still hold their eight.
    await asyncio.to_thread(eventually, lambda: proxy.descriptors() <= before + 4, 10)
    trace = await asyncio.to_thread(proxy.trace, opened[0][1].trace_id)
    assert (trace["outcome"], trace["errorInfo"]["code"]) == ("client_abort", "client_write_stalled")
    for wire, _, _ in opened:
        wire.reset()


async def test_json_bodies_when_made_of_empty_objects_then_waiting_requests_hold_little_more_than_their_bytes(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(by_script=True)
    provider.on(case, script(SILENCE))
    body = b'{"model":"m","messages":[' + b"{}," * 150_000 + b"{}]}"
    wires = [await Wire.open(proxy.address) for _ in range(7)]
    before = 0
    for number, wire in enumerate(wires):
        await wire.send(post("/v1/chat/completions", body, case=case))
        if number == 0:  # the first one also pays for what is loaded with the first of its kind
            await asyncio.to_thread(eventually, lambda: provider.seen(case), 60)
            before = proxy.rss_bytes()
    await asyncio.to_thread(eventually, lambda: len(provider.seen(case)) == len(wires), 60)
    assert proxy.rss_bytes() - before < 10 * (len(wires) - 1) * len(body)
    for wire in wires:
        wire.reset()
