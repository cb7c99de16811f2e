"""Several providers behind the real proxy: a failing one does not reach the client while another is healthy."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import steps
from tests.fakes.judge import assert_error, error_events
from tests.fakes.provider import Provider
from tests.fakes.sidegate import ADMIN_KEY, Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, RESET, SILENCE, chunk, script, sse_head, whole
from tests.fakes.wire import Address, exchange, post, request

LAYERS = """
L0: [{model: gpt-4o-mini, capabilities: [tools]}]
L1: [{model: gpt-4o, upstream: second, capabilities: [tools, vision]}]
"""
AUTO = b'{ "model": "auto",  "messages":[{"role":"user","content":"hi there"}]}'
STREAM = AUTO[:-1] + b',"stream":true}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"some text that was paid for"}}]}\n\n'
ERROR_EVENT = b'data: {"error":{"message":"overloaded","code":"server_error"}}\n\n'


@pytest.fixture(scope="module")
def second() -> Iterator[Provider]:
    running = Provider().start()
    yield running
    running.stop()


def start(provider: Provider, second: Provider, database_url: str, directory: Path, **more: str) -> Sidegate:
    (directory / "layers.yaml").write_text(LAYERS)
    upstreams: list[dict[str, Any]] = [
        {"name": "first", "base_url": provider.base_url, "api_key": "sk-first-0123456789"},
        {"name": "second", "base_url": second.base_url, "api_key": "sk-second-0123456789"},
    ]
    settings = {
        "SIDEGATE__UPSTREAMS": json.dumps(upstreams),
        "SIDEGATE__ROUTING__LAYERS_FILE": str(directory / "layers.yaml"),
        "SIDEGATE__TIMEOUTS__FIRST_BYTE_S": "0.6",
        "OPENAI_API_KEY": "",
        **more,
    }
    return Sidegate(directory, provider.base_url, database_url, settings).start()


@pytest.fixture(scope="module")
def routed(
    provider: Provider, second: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    """A proxy whose breakers forget at once, so that the tests do not depend on their order."""
    forgetful = {"FAILURES": "100000", "WINDOW_ATTEMPTS": "100000", "REFUSED_S": "0.001"}
    more = {f"SIDEGATE__ROUTING__BREAKER__{name}": value for name, value in forgetful.items()}
    running = start(provider, second, session_database_url, tmp_path_factory.mktemp("routed"), **more)
    yield running
    running.stop()


@pytest.fixture
def remembering(provider: Provider, second: Provider, session_database_url: str, tmp_path: Path) -> Iterator[Sidegate]:
    """A proxy with the usual breakers, for one test."""
    running = start(provider, second, session_database_url, tmp_path)
    yield running
    running.stop()


CHAT = b'{"object":"chat.completion","choices":[]}'
FAILING = {
    "500": whole(b'{"error":{}}', status="500 Internal Server Error"),
    "503 for long": whole(b'{"error":{}}', "Retry-After: 3600", status="503 Service Unavailable"),
    "429": whole(b'{"error":{}}', "retry-after-ms: 1", status="429 Too Many Requests"),
    "401": whole(b'{"error":{}}', status="401 Unauthorized"),
    "404": whole(b'{"error":{}}', status="404 Not Found"),
}


@pytest.mark.parametrize("failing", FAILING.values(), ids=FAILING.keys())
@pytest.mark.parametrize("body", [AUTO, STREAM], ids=["plain", "stream"])
async def test_client_when_the_first_provider_says_no_then_the_second_answers_once(
    provider: Provider, second: Provider, routed: Sidegate, case: str, body: bytes, failing: bytes
) -> None:
    provider.on(case, script(failing))
    reply = await exchange(routed.address, post("/v1/chat/completions", body, case=case))
    assert (reply.status, reply.ending) == (200, "complete")
    assert (reply.value("x-sidegate-attempts"), reply.value("x-sidegate-upstream")) == ("2", "second")
    assert (reply.value("x-sidegate-layer"), reply.value("x-sidegate-model")) == ("L1", "gpt-4o")
    (billed,) = second.billed(case)
    assert billed.model == "gpt-4o"
    trace = routed.trace(reply.trace_id)
    assert [call["upstream"] for call in trace["llmCalls"]] == ["first", "second"]
    assert [call["why"] for call in trace["llmCalls"]] == ["first", "fallback"]
    assert trace["llmCalls"][0]["cost"] == 0
    assert trace["totalCost"] == trace["llmCalls"][1]["cost"] > 0
    (decision,) = trace["routingDecisions"]
    assert (decision["layer"], decision["reason"]) == ("L0", "default_layer")


async def test_request_when_routed_then_only_the_model_of_its_body_differs(
    provider: Provider, routed: Sidegate, case: str
) -> None:
    reply = await exchange(routed.address, post("/v1/chat/completions", AUTO, "x-sidegate-quality: low", case=case))
    assert reply.status == 200
    (seen,) = provider.seen(case)
    assert seen.body_bytes == len(AUTO.replace(b"auto", b"gpt-4o-mini"))
    assert not [name for name, _ in seen.headers if name.lower().startswith(b"x-sidegate")]
    assert reply.value("x-sidegate-attempts") == "1"


AT_ONCE = {
    "error event": (sse_head(), chunk(ERROR_EVENT), LAST_CHUNK),
    "no event": (sse_head(), LAST_CHUNK),
}


@pytest.mark.parametrize("sent", AT_ONCE.values(), ids=AT_ONCE.keys())
async def test_stream_when_it_fails_at_once_then_the_client_gets_the_other_one(
    provider: Provider, second: Provider, routed: Sidegate, case: str, sent: tuple[steps.Step, ...]
) -> None:
    provider.on(case, script(*sent))
    reply = await exchange(routed.address, post("/v1/chat/completions", STREAM, case=case))
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert error_events(reply.body) == []
    trace = routed.trace(reply.trace_id)
    assert [call["failure"] for call in trace["llmCalls"]] == ["stream_error", None]
    assert trace["llmCalls"][0]["cost"] == 0
    assert len(second.billed(case)) == 1


async def test_stream_when_it_fails_after_its_first_event_then_nothing_is_repeated(
    provider: Provider, second: Provider, routed: Sidegate, case: str
) -> None:
    provider.on(case, script(sse_head(), chunk(EVENT), CLOSE))
    reply = await exchange(routed.address, post("/v1/chat/completions", STREAM, case=case))
    assert reply.body.startswith(EVENT)
    assert b"[DONE]" not in reply.body
    assert second.seen(case) == []


@pytest.mark.parametrize("end", [RESET, SILENCE], ids=["reset", "silent"])
async def test_request_when_nobody_knows_whether_it_was_executed_then_it_is_not_repeated(
    provider: Provider, second: Provider, routed: Sidegate, case: str, end: steps.End
) -> None:
    provider.on(case, script(end))
    reply = await exchange(routed.address, post("/v1/chat/completions", AUTO, case=case))
    assert_error(reply, 504 if end is SILENCE else 502)
    assert (len(provider.seen(case)), second.seen(case)) == (1, [])


async def test_limit_when_a_provider_asks_to_wait_then_it_is_left_alone_by_later_requests(
    provider: Provider, second: Provider, remembering: Sidegate, case: str
) -> None:
    provider.on(case, script(whole(b'{"error":{}}', "Retry-After: 3600", status="429 Too Many Requests")))
    for _ in range(4):
        reply = await exchange(remembering.address, post("/v1/chat/completions", AUTO, case=case))
        assert reply.status == 200
    assert (len(provider.seen(case)), len(second.billed(case))) == (1, 4)


async def test_model_that_both_have_when_one_fails_then_the_other_answers(
    provider: Provider, second: Provider, routed: Sidegate, case: str
) -> None:
    provider.on(case, script(FAILING["500"]))
    body = AUTO.replace(b"auto", b"o3")
    reply = await exchange(routed.address, post("/v1/chat/completions", body, case=case))
    assert reply.status == 200
    assert (provider.seen(case)[0].body_sha256, len(provider.seen(case))) == (second.seen(case)[0].body_sha256, 1)


async def test_every_provider_when_it_fails_then_the_last_answer_passes(
    provider: Provider, second: Provider, routed: Sidegate, case: str
) -> None:
    provider.on(case, script(FAILING["500"]))
    refusal = whole(b'{"error":{"message":"no","code":"x"}}', "X-Own: 1", status="500 Oh No")
    second.on(case, script(refusal))
    reply = await exchange(routed.address, post("/v1/chat/completions", AUTO, case=case))
    assert (reply.status, reply.reason, reply.value("x-own")) == (500, "Oh No", "1")
    assert reply.body == b'{"error":{"message":"no","code":"x"}}'
    trace = routed.trace(reply.trace_id)
    assert (trace["outcome"], trace["totalCost"]) == ("upstream_error", 0)


async def test_fallback_when_many_requests_run_at_once_then_each_is_answered_and_billed_once(
    provider: Provider, second: Provider, routed: Sidegate, case: str
) -> None:
    ok, bad = steps.script(whole(CHAT)), script(FAILING["500"])
    provider.on(case, *([bad, ok] * 20))
    request = post("/v1/chat/completions", AUTO, case=case)
    replies = await asyncio.gather(*(exchange(routed.address, request) for _ in range(40)))
    assert {reply.status for reply in replies} == {200}
    assert len(second.billed(case)) == sum(reply.value("x-sidegate-upstream") == "second" for reply in replies) == 20


async def own(address: Address, method: str, path: str, body: bytes = b"", *headers: str) -> Any:
    data = request(method, path, f"Authorization: Bearer {ADMIN_KEY}", *headers, body=body or None)
    reply = await exchange(address, data)
    return reply.status, json.loads(reply.body)


async def test_models_when_listed_then_ours_and_the_default_providers(routed: Sidegate, case: str) -> None:
    reply = await exchange(routed.address, request("GET", "/v1/models", case=case))
    listed = json.loads(reply.body)["data"]
    assert [entry["id"] for entry in listed] == ["auto", "L0", "L1", "gpt-4o", "gpt-4o-mini"]
    assert {"id", "object", "created", "owned_by"} <= set.intersection(*map(set, listed))


async def test_explanation_when_asked_for_then_nobody_is_called(
    provider: Provider, second: Provider, routed: Sidegate
) -> None:
    before = len(provider.requests) + len(second.requests)
    status, found = await own(routed.address, "POST", "/v1/route", AUTO, "x-sidegate-layer: L1")
    assert status == 200
    assert (found["layer"], found["model"], found["reason"]) == ("L1", "gpt-4o", "explicit_layer")
    assert found["estimate"]["maxCost"] > 0
    assert found["answer"] == {"autoEscalate": False, "crossCheck": False}
    assert len(provider.requests) + len(second.requests) == before
    status, found = await own(routed.address, "POST", "/v1/route", b'{"model":"auto","input":"hi"}')
    assert (status, found["layer"]) == (200, "L0")
    status, found = await own(routed.address, "POST", "/v1/route", b"{")
    assert (status, found["error"]["code"]) == (400, "invalid_json")


async def test_upstreams_when_asked_for_then_their_states_and_no_credential(routed: Sidegate) -> None:
    status, found = await own(routed.address, "GET", "/v1/sidegate/upstreams")
    assert (status, [one["upstream"] for one in found["upstreams"]]) == (200, ["first", "second"])
    assert "sk-" not in json.dumps(found)
    reply = await exchange(routed.address, request("GET", "/v1/sidegate/upstreams"))
    assert_error(reply, 401)
