import json

import pytest

from proxy.ingress.ops import Ops
from proxy.metrics import Metrics
from tests.ingress.wire import request, serving


def ops(status="ready"):
    return Ops(Metrics(10), lambda: {"status": status, "database": "down"})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_ops_when_asked_for_what_it_has_then_it_answers(method):
    async with serving(ops().handle) as server, server.client() as client:
        for path in ("/livez", "/readyz", "/readyz?verbose", "/metrics"):
            await client.say(request(path, method=method))
            answer = await client.answer(to_head=method == "HEAD")
            assert answer.status == 200, path
            assert bool(answer.body) is (method == "GET")


async def test_readiness_when_the_database_is_away_then_the_body_says_so_and_it_stays_ready():
    async with serving(ops().handle) as server:
        answer = await server.ask(request("/readyz"))
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "ready", "database": "down"})


async def test_readiness_when_draining_then_503_while_the_process_lives():
    async with serving(ops("draining").handle) as server:
        assert (await server.ask(request("/readyz"))).status == 503
        assert json.loads((await server.ask(request("/livez"))).body) == {"status": "alive"}


async def test_metrics_when_scraped_then_in_the_text_format():
    async with serving(ops().handle) as server:
        answer = await server.ask(request("/metrics"))
    assert answer.value(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    assert b"# TYPE sidegate_requests_total counter" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_path"),
        ("GET", "/v1/models", 404, "unknown_path"),
        ("GET", "/METRICS", 404, "unknown_path"),
        ("POST", "/metrics", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
    ],
)
async def test_ops_when_asked_for_anything_else_then_an_error_of_the_usual_shape(method, path, status, code):
    async with serving(ops().handle) as server:
        answer = await server.ask(request(path, method=method))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert answer.value(b"allow") == (b"GET, HEAD" if status == 405 else None)
