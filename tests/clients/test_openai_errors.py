"""Errors reach an application as the same exception, with the same attributes and after the same number of tries."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import respx
from openai import OpenAI

from tests.fakes.provider import Provider, Script
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, RESET, SILENCE, chunk, head, script, sse_head, whole

MESSAGES: Any = [{"role": "user", "content": "hi"}]
QUICK = "retry-after-ms: 1"
OK = whole(b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}')
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


def failure(status: str, *lines: str, code: str | None = "some_code") -> bytes:
    error = {"message": f"about {status}", "type": "some_type", "param": "messages[0]", "code": code}
    return whole(json.dumps({"error": error}).encode(), "x-request-id: req_e", QUICK, *lines, status=status)


def attempt(base_url: str, case: str, stream: bool = False, timeout: float = 20) -> dict[str, Any]:
    """Make one call and return all that an application can see of its end."""
    headers = {"x-case-id": case}
    with OpenAI(base_url=base_url, api_key="sk-c", default_headers=headers, timeout=timeout, max_retries=2) as client:
        try:
            answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
            parts = [part.model_dump() for part in answer] if stream else answer.model_dump()  # type: ignore[union-attr]
        except openai.APIStatusError as error:
            seen = {"class": type(error).__name__, "status": error.status_code, "request_id": error.request_id}
            return seen | {"code": error.code, "param": error.param, "type": error.type, "body": error.body}
        except openai.APIError as error:
            return {"class": type(error).__name__, "code": error.code, "body": error.body}
        except httpx.HTTPError as error:
            return {"class": type(error).__name__}
        return {"class": None, "parts": parts}


@pytest.fixture
def both(provider: Provider, sidegate: Sidegate, case: str) -> Iterator[Any]:
    """Play scripts direct and through, and return both ends with the number of tries."""

    def play(*scripts: Script, **options: Any) -> list[tuple[dict[str, Any], int]]:
        ends = []
        for way, base_url in (("direct", provider.base_url), ("through", sidegate.base_url)):
            name = f"{case}-{way}"
            provider.on(name, *scripts)
            ends.append((attempt(base_url, name, **options), len(provider.seen(name))))
        return ends

    yield play


STATUSES = [
    "400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "408 Request Timeout", "409 Conflict",
    "413 Payload Too Large", "422 Unprocessable Entity", "429 Too Many Requests", "500 Internal Server Error",
    "502 Bad Gateway", "503 Service Unavailable", "529 Overloaded",
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", STATUSES)
def test_error_when_the_provider_sends_it_then_the_exception_is_the_same(both: Any, status: str, stream: bool) -> None:
    direct, through = both(script(failure(status)), stream=stream)
    assert through == direct
    assert direct[0]["status"] == int(status[:3])


RETRIES = {
    "429 then ok": [script(failure("429 Slow")), script(OK)],
    "500 twice then ok": [script(failure("500 Oops")), script(failure("500 Oops")), script(OK)],
    "told not to": [script(failure("500 Oops", "x-should-retry: false")), script(OK)],
    "told to": [script(failure("400 Odd", "x-should-retry: true")), script(OK)],
    "far away": [script(failure("429 Slow", code="insufficient_quota").replace(QUICK.encode(), b"retry-after: 7200"))],
    "not json": [script(whole(b"<html>", QUICK, status="502 Bad Gateway", content_type="text/html"))],
    "empty": [script(whole(b"", QUICK, status="503 Down"))],
    "error is text": [script(whole(b'{"error":"text"}', status="400 Bad Request"))],
    "list": [script(whole(b"[1]", status="400 Bad Request"))],
}


@pytest.mark.parametrize("scripts", RETRIES.values(), ids=RETRIES.keys())
def test_retries_when_the_provider_asks_for_them_then_they_are_the_same(both: Any, scripts: list[Script]) -> None:
    direct, through = both(*scripts)
    assert through[1] == direct[1]
    if direct[0].get("request_id", "") is None:
        assert through[0].pop("request_id"), "the trace id stands for a missing request id"
        direct[0].pop("request_id")
    assert through[0] == direct[0]


STREAM_ERRORS = {
    "error event": chunk(b'data: {"error":{"message":"m","type":"server_error","param":null,"code":"c"}}\n\n')
    + LAST_CHUNK,
    "named error event": chunk(b'event: error\ndata: {"error":{"message":"m","type":"t","code":"c"}}\n\n') + LAST_CHUNK,
    "bad json": chunk(b"data: {not json}\n\n") + LAST_CHUNK,
}


@pytest.mark.parametrize("rest", STREAM_ERRORS.values(), ids=STREAM_ERRORS.keys())
def test_stream_when_it_carries_an_error_then_the_exception_is_the_same(
    provider: Provider, sidegate: Sidegate, case: str, rest: bytes
) -> None:
    provider.on(case, script(sse_head(), chunk(EVENT), rest))
    ends = []
    for base_url in (provider.base_url, sidegate.base_url):
        try:
            ends.append(attempt(base_url, case, stream=True))
        except json.JSONDecodeError as error:
            ends.append({"class": str(error)})
    assert ends[0] == ends[1]
    assert ends[0]["class"] is not None


BROKEN = {
    "closed in a stream": script(sse_head(), chunk(EVENT), CLOSE),
    "reset in a stream": script(sse_head(), chunk(EVENT), RESET),
    "bad chunk in a stream": script(sse_head(), chunk(EVENT), b"zz\r\n", CLOSE),
    "closed in an event": script(sse_head(), chunk(EVENT), chunk(EVENT[:40]), CLOSE),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_stream_when_the_provider_dies_then_the_application_is_told(both: Any, broken: Script) -> None:
    direct, through = both(broken, stream=True)
    assert direct[0]["class"] is not None
    assert through[0]["class"] is not None
    assert through[1] == direct[1] == 1


DEAD = {"closed": script(CLOSE), "reset": script(RESET), "half a head": script(b"HTTP/1.1 200 OK\r\nX", CLOSE)}


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD.keys())
def test_call_when_the_provider_is_dead_then_the_sdk_tries_as_often_as_direct(both: Any, dead: Script) -> None:
    direct, through = both(dead)
    assert direct[0]["class"] == "APIConnectionError"
    assert through[0]["class"] == "InternalServerError"
    assert through[0]["status"] == 502
    assert through[0]["code"].startswith("upstream_")
    assert through[1] == direct[1] == 3


def test_call_when_cut_in_its_body_then_the_application_is_told(both: Any) -> None:
    cut = head("200 OK", "Content-Length: 500") + b'{"id":'
    direct, through = both(script(cut, CLOSE))
    assert direct[0]["class"] is not None
    assert through[0]["class"] is not None


def test_timeout_when_the_client_gives_up_then_the_exception_is_the_same(both: Any) -> None:
    direct, through = both(script(SILENCE), timeout=0.25)
    assert through == direct
    assert direct[0]["class"] == "APITimeoutError"
    assert direct[1] == 3


def test_refusal_when_it_is_ours_then_the_sdk_raises_the_right_class(sidegate: Sidegate) -> None:
    with OpenAI(base_url=sidegate.base_url, api_key="sk-c") as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.post("/chat/completions", content=b"{nope", cast_to=object)
        assert caught.value.type == "invalid_request_error"
        assert caught.value.request_id
        with pytest.raises(openai.AuthenticationError) as denied:
            client.get("/traces", cast_to=object)
        assert denied.value.code == "invalid_api_key"


def test_call_when_made_at_the_providers_own_host_then_it_is_what_comes_through(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [], "usage": None}
    with respx.mock(base_url="https://api.openai.com/v1") as host:
        host.post("/chat/completions").respond(200, json=body, headers={"x-request-id": "req_host"})
        with OpenAI(api_key="sk-c") as client:
            direct = client.chat.completions.create(model="m", messages=MESSAGES)
    provider.on(case, script(whole(json.dumps(body).encode(), "x-request-id: req_host")))
    with OpenAI(base_url=sidegate.base_url, api_key="sk-c", default_headers={"x-case-id": case}) as client:
        through = client.chat.completions.create(model="m", messages=MESSAGES)
    assert through == direct
    assert through._request_id == direct._request_id == "req_host"
