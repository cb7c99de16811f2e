import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol

from proxy.ingress.aiohttp_streams import AiohttpOutlet
from tests.event_loop.test_write_batching import Socket


def connected() -> tuple[BaseProtocol, AiohttpOutlet, list[bytes]]:
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.connection_made(Socket(written := []))
    return protocol, AiohttpOutlet(protocol), written


async def test_write_when_connected_then_it_leaves_at_once_in_any_turn():
    protocol, outlet, written = connected()
    assert outlet.write(b"1")
    assert outlet.write_in_turn(b"2")
    assert (written, outlet.unsent_bytes, outlet.is_paused) == ([b"1", b"2"], 7, False)
    protocol.pause_writing()
    assert outlet.is_paused


@pytest.mark.parametrize("end", [AiohttpOutlet.close, AiohttpOutlet.abort])
async def test_write_when_the_connection_closes_then_it_says_so(end):
    _, outlet, written = connected()
    end(outlet)
    assert not outlet.write(b"1")
    assert len(written) == 1


async def test_outlet_when_the_connection_is_lost_then_nothing_is_written_and_waiting_fails():
    protocol, outlet, written = connected()
    protocol.connection_lost(None)
    assert not outlet.write(b"1")
    outlet.close()
    outlet.abort()
    assert (written, outlet.unsent_bytes) == ([], 0)
    with pytest.raises(ConnectionError):
        await outlet.drain()
