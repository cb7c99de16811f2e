import asyncio
import subprocess
import sys
import threading

import pytest

from proxy.config.schema import Limits
from proxy.exchange import Delivery
from proxy.ingress import lean
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.listener import SafeServer
from tests.ingress.wire import KIND, request, serving, until

CHUNKED = request("/v1/x", "Transfer-Encoding: chunked", method="POST") + b"0\r\n\r\n"


async def plain(asked):
    downstream = HttpDownstream(asked, Delivery(), 5.0)
    await downstream.send(200, "OK", (), b"ok")
    return downstream


def test_process_when_it_is_ready_for_plain_requests_then_aiohttp_is_not_loaded():
    loaded = "import proxy.serve, sys; print(*{'aiohttp', 'multidict', 'yarl'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"\n"


async def test_request_when_the_management_api_is_not_loaded_yet_then_only_its_own_requests_wait(monkeypatch):
    may_load, asked = threading.Event(), []

    def load(target):
        asked.append(target)
        assert target != "the:api" or may_load.wait(10)
        return SafeServer

    KIND.set("lean")
    monkeypatch.setattr(lean, "imported", load)
    async with serving(plain, is_elsewhere=lambda target: target == "/ours", loads="the:api") as server:
        try:
            async with server.client() as chunked, server.client() as later, server.client() as own:
                await own.say(request("/ours"))
                await until(lambda: "the:api" in asked)
                for client in (chunked, later):
                    await client.say(CHUNKED)
                    assert (await client.answer()).body == b"ok"
                assert len(server.manager.connections) == 2
                may_load.set()
                assert (await own.answer()).body == b"ok"
                await own.say(request("/ours"))
                assert (await own.answer()).body == b"ok"
            assert (await server.ask(request("/ours"))).body == b"ok"
            assert asked.count("the:api") == 1
        finally:
            may_load.set()


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
