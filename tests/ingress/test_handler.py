"""What the data port decides before the pipeline: drain, limits, target, management API."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from proxy.api.lazy import may_be_ours
from proxy.config import schema
from proxy.config.schema import Config, Limits
from proxy.errors import InvalidRequest, PermissionDenied
from proxy.exchange import Exchange
from proxy.ingress.handler import Ingress
from proxy.ingress.serving import Serving
from proxy.metrics import Metrics
from proxy.process.shedding import Shedding
from tests.ingress.wire import Server, request, serving, until


@dataclass
class Pipeline:
    """Notes exchanges and answers them; `hold` makes requests wait."""

    seen: list[Exchange] = field(default_factory=list)
    hold: asyncio.Event | None = None
    ended: list[Any] = field(default_factory=list)

    async def handle(self, x, body, downstream):
        self.seen.append(x)
        read = await body.read(1000) if x.inbound.has_body else b""
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.ended.append(downstream.ended_by)
                if downstream.ended_by is None:
                    raise
                return downstream.cut()
        await downstream.send(200, "OK", (), b"read " + read)

    async def handle_websocket(self, x, client, downstream):
        self.seen.append(x)
        await client.accept(None, ())
        await client.finish()


class Api:
    """One path of our own, and what may go wrong on it."""

    def match(self, method, path):
        return method if path == "/v1/traces" else None

    async def handle(self, asked, route):
        if route == "PUT":
            raise PermissionDenied("Not yours.")
        if route == "POST":
            raise ValueError("sk-canary")
        return web.Response(text="ours")

    def page(self, request):
        return web.Response(text=f"page {request.raw_path}")


class SlowApi(Api):
    """Answers in two pieces with a wait before one of them; `error`: instead of the second piece."""

    def __init__(self, waits_before: str = "last", error: Exception | None = None) -> None:
        self._waits_before = waits_before
        self._error = error
        self.asked = asyncio.Event()
        self.hold = asyncio.Event()

    async def handle(self, asked, route):
        self.asked.set()
        if self._waits_before == "first":
            await self.hold.wait()
        return web.Response(body=self._pieces())

    async def _pieces(self):
        yield b"first"
        await self.hold.wait()
        if self._error is not None:
            raise self._error
        yield b"last"


class EndlessApi(Api):
    """Answers with an export that has no end."""

    async def handle(self, asked, route):
        return web.Response(body=self._pieces())

    async def _pieces(self):
        while True:
            yield bytes(1 << 20)


@contextlib.asynccontextmanager
async def data_port(pipeline=None, surfaces="all", shedding=None, api=None, write_stall_s=60.0, **limits):
    metrics = Metrics(10)
    timeouts = schema.Timeouts(write_stall_s=write_stall_s)
    config = Config(limits=Limits(**limits), server=schema.Server(surfaces=surfaces), timeouts=timeouts)
    shedding = shedding or Shedding(config.shedding, metrics, None, concurrent_requests=512)
    ingress = Ingress(Serving(config, pipeline or Pipeline(), api or Api()), metrics, shedding)
    async with serving(ingress.handle, is_elsewhere=may_be_ours) as server:
        yield server, ingress, metrics


def code(answer) -> str:
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["code"]


async def test_request_when_admitted_then_the_exchange_says_what_came():
    pipeline = Pipeline()
    async with data_port(pipeline) as (server, ingress, metrics):
        answer = await server.ask(request("/v1/chat/completions?a=%20", "X-A: 1", method="POST", body=b"{}"))
        assert (answer.status, answer.body) == (200, b"read {}")
        await until(lambda: not ingress.running)
        assert metrics.in_flight == 0
    (x,) = pipeline.seen
    inbound = x.inbound
    assert (inbound.method, inbound.target, inbound.path) == (
        "POST",
        "/v1/chat/completions?a=%20",
        "/v1/chat/completions",
    )
    assert inbound.operation.name == "chat.completions.create"
    assert (inbound.peer, inbound.content_length, inbound.has_body) == ("127.0.0.1", 2, True)
    assert (b"X-A", b"1") in inbound.headers
    assert inbound.fields[b"x-a"] == b"1"
    assert x.outcome is None


@pytest.mark.parametrize(
    ("surfaces", "own", "relayed"),
    [("all", 200, 200), ("data", 404, 200), ("api", 200, 404)],
)
async def test_request_when_its_surface_is_not_served_here_then_404_and_nothing_is_relayed(surfaces, own, relayed):
    pipeline = Pipeline()
    async with data_port(pipeline, surfaces) as (server, _, _):
        answers = [await server.ask(request(path)) for path in ("/v1/traces", "/v1/models")]
    assert [answer.status for answer in answers] == [own, relayed]
    assert len(pipeline.seen) == (relayed == 200)
    assert all(code(answer) == "surface_not_served" for answer in answers if answer.status == 404)


@pytest.mark.parametrize(
    ("lines", "body", "content_length", "has_body"),
    [
        ((), b"", None, False),
        (("Content-Length: 0",), b"", 0, False),
        (("Transfer-Encoding: chunked",), b"2\r\n{}\r\n0\r\n\r\n", None, True),
    ],
)
async def test_request_when_framed_anyhow_then_the_exchange_knows_its_body(lines, body, content_length, has_body):
    pipeline = Pipeline()
    async with data_port(pipeline) as (server, _, _):
        await server.ask(request("/v1/x", *lines, method="POST") + body)
    assert (pipeline.seen[0].inbound.content_length, pipeline.seen[0].inbound.has_body) == (content_length, has_body)


async def test_upgrade_when_to_a_websocket_then_the_session_has_its_own_way():
    pipeline = Pipeline()
    async with data_port(pipeline) as (server, _, _), server.client() as client:
        lines = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        await client.say(request("/v1/realtime", *lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    assert pipeline.seen[0].inbound.operation.name == "realtime.connect"


@pytest.mark.parametrize(
    ("method", "target", "status", "expected"),
    [
        ("GET", "/", 404, "unknown_path"),
        ("GET", "/v1", 404, "unknown_path"),
        ("GET", "/v2/models", 404, "unknown_path"),
        ("POST", "/metrics", 404, "unknown_path"),
        ("GET", "/v1/../admin", 400, "invalid_path"),
        ("GET", "/v1/%2e%2e/x", 400, "invalid_path"),
        ("GET", "http://evil/v1/models", 400, "invalid_path"),
        ("TRACE", "/v1/models", 405, "method_not_allowed"),
        ("CONNECT", "evil:443", 405, "method_not_allowed"),
        ("PUT", "/v1/traces", 403, "permission_denied"),
        ("POST", "/v1/traces", 500, "internal_error"),
    ],
)
async def test_request_when_refused_then_the_usual_shape_and_the_pipeline_does_not_see_it(
    method, target, status, expected
):
    pipeline = Pipeline()
    async with data_port(pipeline) as (server, _, metrics):
        answer = await server.ask(request(target, method=method))
        rendered = metrics.render()
    assert (answer.status, code(answer)) == (status, expected)
    assert answer.value(b"x-sidegate-trace-id")
    assert (answer.value(b"allow") is not None) == (status == 405)
    assert b"canary" not in answer.body
    assert pipeline.seen == []
    assert expected.encode() in rendered


async def test_head_when_refused_then_no_body_spoils_the_next_answer():
    async with data_port() as (server, _, _), server.client() as client:
        await client.say(request("/nowhere", method="HEAD"))
        assert (await client.answer(to_head=True)).status == 404
        await client.say(request("/v1/models"))
        assert (await client.answer()).body == b"read "


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/../v1/models", "/ui/app.js?x=1"])
async def test_dashboard_when_asked_for_then_it_answers_with_the_path_as_it_came(path):
    async with data_port(surfaces="api") as (server, _, _):
        answer = await server.ask(request(path))
        assert (answer.body, len(answer.value(b"x-sidegate-trace-id"))) == (f"page {path}".encode(), 36)


async def test_dashboard_when_only_the_data_plane_is_served_then_it_is_not():
    async with data_port(surfaces="data") as (server, _, _):
        answer = await server.ask(request("/ui/"))
        assert (answer.status, code(answer)) == (404, "surface_not_served")


async def test_own_api_when_its_path_is_asked_for_then_it_answers():
    async with data_port() as (server, _, _):
        assert (await server.ask(request("/v1/traces?limit=1"))).body == b"ours"


@contextlib.asynccontextmanager
async def held(pipeline: Pipeline, server: Server, count: int):
    """Clients whose requests are running."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            client = await stack.enter_async_context(server.client())
            await client.say(request("/v1/models"))
            clients.append(client)
            await until(lambda number=number: len(pipeline.seen) == number + 1)
        yield clients


async def test_requests_when_too_many_at_once_then_503_and_the_running_ones_go_on():
    pipeline = Pipeline(hold=asyncio.Event())
    async with data_port(pipeline, concurrent_requests=2) as (server, ingress, metrics):
        async with held(pipeline, server, 2) as clients:
            assert (ingress.running, metrics.in_flight) == (2, 2)
            answer = await server.ask(request("/v1/models"))
            assert (answer.status, code(answer)) == (503, "too_many_requests_in_flight")
            assert answer.value(b"retry-after") == b"1"
            pipeline.hold.set()
            for client in clients:
                assert (await client.answer()).status == 200
        await until(lambda: ingress.running == 0)
        assert metrics.in_flight == 0


async def test_requests_when_memory_is_full_then_503_and_our_own_api_and_the_running_ones_go_on():
    pipeline = Pipeline(hold=asyncio.Event())
    shedding = Shedding(schema.Shedding(memory_limit_bytes=100), Metrics(1), None, concurrent_requests=512)
    async with data_port(pipeline, shedding=shedding) as (server, _, metrics):
        async with held(pipeline, server, 1) as [client], server.client() as kept:
            await kept.say(request("/v1/traces"))
            assert (await kept.answer()).body == b"ours"
            shedding.note(0.0, 99)
            for _ in range(2):
                answer = await server.ask(request("/v1/models"))
                assert (answer.status, code(answer)) == (503, "overloaded_memory")
                assert answer.value(b"retry-after") == b"1"
            assert (await server.ask(request("/v1/traces"))).body == b"ours"
            pipeline.hold.set()
            assert (await client.answer()).status == 200
            await client.say(request("/v1/models"))  # a head that is known already
            assert (await client.answer()).status == 503
            shedding.note(0.0, 1)
            await client.say(request("/v1/models"))
            assert (await client.answer()).status == 200
        assert b'sidegate_errors_total{code="overloaded_memory",source="sidegate"} 3.0' in metrics.render()


async def test_drain_when_begun_then_running_requests_finish_and_new_ones_are_told_to_come_again():
    pipeline = Pipeline(hold=asyncio.Event())
    async with data_port(pipeline) as (server, ingress, _), server.client() as idle:
        await idle.say(request("/v1/traces"))
        assert (await idle.answer()).status == 200
        async with held(pipeline, server, 1) as (client,):
            ingress.begin_drain()
            await idle.say(request("/v1/models"))
            refused = await idle.answer()
            assert (refused.status, code(refused)) == (503, "shutting_down")
            assert refused.value(b"connection") == b"close"
            assert await idle.rest() == b""
            pipeline.hold.set()
            answer = await client.answer()
            assert (answer.status, answer.value(b"connection")) == (200, b"close")
            assert await client.rest() == b""
        await ingress.until_idle(5)
        assert ingress.running == 0


async def test_drain_when_its_time_is_over_then_what_runs_is_ended_as_ours():
    pipeline = Pipeline(hold=asyncio.Event())
    async with data_port(pipeline) as (server, ingress, _), held(pipeline, server, 3) as clients:
        ingress.begin_drain()
        await ingress.until_idle(0.02)
        assert ingress.running == 3
        ingress.end_drain()
        await ingress.until_idle(5)
        assert (ingress.running, [error.code for error in pipeline.ended]) == (0, ["shutting_down"] * 3)
        for client in clients:
            assert await client.rest() == b""


async def test_drain_when_our_own_api_is_answering_then_that_answer_is_waited_for_to_its_end():
    api = SlowApi()
    async with data_port(api=api, concurrent_requests=1) as (server, ingress, _), server.client() as client:
        await client.say(request("/v1/traces"))
        await client.head()
        assert (await server.ask(request("/v1/models"))).status == 200, "it takes no place in the data plane"
        ingress.begin_drain()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ingress.until_idle(60)
        api.hold.set()
        whole = b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n"
        assert await client.exactly(len(whole)) == whole
        async with asyncio.timeout(5):
            await ingress.until_idle(60)


async def test_drain_when_our_own_api_has_not_answered_yet_then_the_connection_ends_with_its_answer():
    api = SlowApi(waits_before="first")
    async with data_port(api=api) as (server, ingress, _), server.client() as client:
        await client.say(request("/v1/traces"))
        await api.asked.wait()
        ingress.begin_drain()
        api.hold.set()
        answer = await client.answer()
        assert (answer.body, answer.value(b"connection")) == (b"firstlast", b"close")
        assert await client.rest() == b""


async def test_drain_when_its_time_is_over_then_an_answer_of_our_own_api_is_visibly_cut():
    async with data_port(api=SlowApi()) as (server, ingress, _), server.client() as client:
        await client.say(request("/v1/traces"))
        await client.head()
        ingress.begin_drain()
        await ingress.until_idle(0.02)
        ingress.end_drain()
        async with asyncio.timeout(5):
            await ingress.until_idle(60)
        assert await client.rest() == b"5\r\nfirst\r\n"


async def test_drain_when_a_client_does_not_read_what_our_own_api_answers_then_it_is_cut():
    async with data_port(api=EndlessApi(), write_stall_s=0.05) as (server, ingress, _), server.client() as client:
        await client.say(request("/v1/traces"))
        await client.head()
        ingress.begin_drain()
        async with asyncio.timeout(5):
            await ingress.until_idle(60)
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_own_api_when_it_fails_halfway_then_nothing_follows_what_was_sent():
    api = SlowApi(error=PermissionDenied("Too late."))
    api.hold.set()
    async with data_port(api=api) as (server, _, _), server.client() as client:
        await client.say(request("/v1/traces"))
        await client.head()
        assert await client.rest() == b"5\r\nfirst\r\n"


async def test_idle_when_nothing_runs_then_the_wait_is_over_at_once():
    async with data_port() as (_, ingress, _), asyncio.timeout(1):
        await ingress.until_idle(60)


async def test_client_when_it_leaves_then_its_request_is_cancelled_as_its_own():
    pipeline = Pipeline(hold=asyncio.Event())
    async with data_port(pipeline) as (server, ingress, metrics):
        async with held(pipeline, server, 1) as (client,):
            client.reset()
            await until(lambda: ingress.running == 0)
    assert pipeline.ended == [None]
    assert metrics.in_flight == 0


async def test_pipeline_when_it_lets_an_error_escape_then_nothing_follows_what_was_sent():
    class Broken(Pipeline):
        async def handle(self, x, body, downstream):
            await downstream.start(200, "OK", (), None)
            await downstream.write(b"half")
            raise InvalidRequest("a bug")

    async with data_port(Broken()) as (server, ingress, metrics), server.client() as client:
        await client.say(request("/v1/models"))
        await client.head()
        assert await client.rest() == b"4\r\nhalf\r\n"
        assert (ingress.running, metrics.in_flight) == (0, 0)
