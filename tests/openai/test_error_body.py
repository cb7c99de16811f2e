"""Our errors as OpenAI's SDK sees them."""

import json
from typing import Any

import httpx
import openai
import pytest

from proxy import errors
from proxy.exchange import Dialect
from proxy.openai.error_body import render, stream_event

ERRORS = [
    (errors.InvalidRequest("m", param="model"), openai.BadRequestError),
    (errors.InvalidRequest("m", status=404, code="unknown_path"), openai.NotFoundError),
    (errors.InvalidRequest("m", status=413, code="request_too_large"), openai.APIStatusError),
    (errors.Unauthenticated("m"), openai.AuthenticationError),
    (errors.PermissionDenied("m"), openai.PermissionDeniedError),
    (errors.InternalError("m"), openai.InternalServerError),
    (errors.UpstreamFailed("m"), openai.InternalServerError),
    (errors.UpstreamTimeout("m", code="upstream_gap_timeout"), openai.InternalServerError),
    (errors.Overloaded("m", retry_after_s=1), openai.InternalServerError),
]


def client(handler: Any, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="k",
        base_url="http://sidegate.test/v1",
        max_retries=retries,
        http_client=httpx.Client(transport=httpx.MockTransport(handler)),
    )


@pytest.mark.parametrize(("error", "raised"), ERRORS, ids=lambda value: type(value).__name__)
def test_render_when_the_sdk_reads_it_then_its_own_exception(error: errors.ProxyError, raised: type[Exception]) -> None:
    status, headers, body = render(error)
    with pytest.raises(raised) as caught:
        client(lambda _: httpx.Response(status, headers=headers, content=body)).models.list()
    seen: Any = caught.value
    assert (seen.status_code, seen.code, seen.param, seen.type) == (status, error.code, error.param, error.type)
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.Overloaded("m", retry_after_s=0.2), {b"Retry-After": b"1"}),
        (errors.Overloaded("m", retry_after_s=1.5), {b"Retry-After": b"2"}),
        (errors.Overloaded("m", retry_after_s=120), {b"Retry-After": b"120"}),
        (errors.Overloaded("m", retry_after_s=3600), {b"Retry-After": b"3600", b"x-should-retry": b"false"}),
        (errors.UpstreamFailed("m", code="upstream_bad_encoding"), {b"x-should-retry": b"false"}),
        (errors.UpstreamFailed("m"), {}),
        (errors.Unauthenticated("m"), {b"WWW-Authenticate": b"Bearer"}),
    ],
)
def test_render_when_waiting_helps_or_not_then_the_headers_say_so(error, expected) -> None:
    assert dict(render(error)[1]) == expected | {b"Content-Type": b"application/json"}


def test_render_when_waiting_is_pointless_then_the_sdk_asks_once() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        status, headers, body = render(errors.Overloaded("m", retry_after_s=3600))
        return httpx.Response(status, headers=headers, content=body)

    with pytest.raises(openai.InternalServerError):
        client(answer, retries=2).models.list()
    assert len(asked) == 1


def test_render_when_the_message_holds_anything_then_ascii_json() -> None:
    message = 'é "\ud83d"\r\n'
    body = render(errors.InvalidRequest(message))[2]
    assert body.isascii() and b"\n" not in body
    assert json.loads(body)["error"]["message"] == message


def streamed(event: bytes, before: bytes = b"") -> Any:
    return client(lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=before + event))


CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


def test_stream_event_when_a_chat_breaks_off_then_the_sdk_raises() -> None:
    event = stream_event(errors.UpstreamTimeout("too slow", code="upstream_gap_timeout"), "chat")
    stream = streamed(event, CHUNK).chat.completions.create(model="m", messages=[], stream=True)
    assert next(stream).id == "c"
    with pytest.raises(openai.APIError, match="too slow") as caught:
        next(stream)
    assert (caught.value.code, caught.value.type, caught.value.param) == ("upstream_gap_timeout", "server_error", None)


def test_stream_event_when_a_response_breaks_off_then_the_sdk_raises() -> None:
    event = stream_event(errors.UpstreamFailed("cut"), "responses", sequence_number=4)
    stream = streamed(event).responses.create(model="m", input="x", stream=True)
    with pytest.raises(openai.APIError, match="cut") as caught:
        next(stream)
    assert caught.value.code == "upstream_failed"
    data = json.loads(event.removeprefix(b"event: error\ndata: "))
    assert (data["type"], data["message"], data["code"], data["param"]) == ("error", "cut", "upstream_failed", None)
    assert data["sequence_number"] == 4


@pytest.mark.parametrize("dialect", ["audio", "images", "generic", "none"])
def test_stream_event_when_the_dialect_is_another_then_type_and_error(dialect: Dialect) -> None:
    event = stream_event(errors.InternalError("m"), dialect)
    assert event.startswith(b"event: error\ndata: ") and event.endswith(b"}\n\n")
    data = json.loads(event.removeprefix(b"event: error\ndata: "))
    assert (data["type"], data["error"]["code"]) == ("error", "internal_error")
    with pytest.raises(openai.APIError):
        next(streamed(event).chat.completions.create(model="m", messages=[], stream=True))
