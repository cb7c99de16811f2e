import asyncio
import subprocess
import sys

import pytest

from proxy.config.schema import Limits
from proxy.exchange import Delivery
from proxy.ingress.downstream import HttpDownstream
from tests.ingress.wire import request, serving, until

CHUNKED = request("/v1/x", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n"


async def plain(asked):
    downstream = HttpDownstream(asked, Delivery(), 5.0)
    await downstream.send(200, "OK", (), b"ok")
    return downstream


def test_process_when_it_is_ready_for_plain_requests_then_aiohttp_is_not_loaded():
    loaded = "import proxy.serve, sys; print(*{'aiohttp', 'multidict', 'yarl'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"\n"


async def test_cap_when_reached_then_connections_count_wherever_they_are_served():
    async with serving(plain, Limits(connections=2)) as server:
        async with server.client() as first, server.client() as second:
            for client, wire in ((first, CHUNKED), (second, request("/"))):
                await client.say(wire)
                assert (await client.answer()).status == 200
            assert len(server.manager.connections) == 2
            async with server.client() as third:
                assert (await third.answer()).status == 503
        await until(lambda: not server.manager.connections)


@pytest.mark.parametrize("wire", [request("/"), CHUNKED], ids=["plain", "chunked"])
async def test_shutdown_when_requests_run_then_they_may_finish_and_the_late_ones_are_cancelled(wire):
    hold, began, ended = asyncio.Event(), [], []

    async def waiting(asked):
        began.append(asked)
        try:
            await hold.wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return await plain(asked)

    async with serving(waiting) as server, server.client() as idle, server.client() as client:
        for late in (False, True):
            hold.clear()
            began.clear()
            async with server.client() as running:
                await running.say(wire)
                await until(lambda: began)
                server.manager.pre_shutdown()
                stopping = asyncio.create_task(server.manager.shutdown(0.05 if late else 5.0))
                await asyncio.sleep(0.01)
                if not late:
                    hold.set()
                    assert (await running.answer()).body == b"ok"
                await stopping
                assert await running.rest() == b""
        assert ended == ["cancelled"]
        assert await idle.rest() == await client.rest() == b""
        await until(lambda: not server.manager.connections)
