"""Our errors as OpenAI's SDK sees them; limits over a real socket, with the waits and tries that they cause."""

import json
import time
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

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
        (errors.Overloaded("m", retry_after_s=60), {b"Retry-After": b"60"}),
        (errors.Overloaded("m", retry_after_s=60.1), {b"Retry-After": b"61", b"x-should-retry": b"false"}),
        (errors.Overloaded("m", retry_after_s=3600), {b"Retry-After": b"3600", b"x-should-retry": b"false"}),
        (errors.QuotaExceeded("m", retry_after_s=0.2), {b"Retry-After": b"1", b"x-should-retry": b"false"}),
        (errors.QuotaExceeded("m", retry_after_s=30.2), {b"Retry-After": b"31", b"x-should-retry": b"false"}),
        (errors.QuotaExceeded("m"), {b"x-should-retry": b"false"}),
        (errors.RateLimited("m", retry_after_s=0), {b"Retry-After": b"1", b"retry-after-ms": b"1"}),
        (errors.RateLimited("m", retry_after_s=1.2001), {b"Retry-After": b"2", b"retry-after-ms": b"1201"}),
        (errors.RateLimited("m", retry_after_s=60), {b"Retry-After": b"60", b"retry-after-ms": b"60000"}),
        (errors.RateLimited("m", retry_after_s=60.1), {b"Retry-After": b"61", b"x-should-retry": b"false"}),
        (errors.RateLimited("m"), {b"x-should-retry": b"false"}),
        (errors.QuotaUnavailable("m", retry_after_s=2), {b"Retry-After": b"2"}),
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


DAILY = errors.QuotaExceeded(
    "used up",
    details={"reason": "cost", "limit": 10.5, "used": 1, "remaining": None},
    reset_at="2027-03-14T18:30:00Z",
    retry_after_s=30,
)


def test_render_when_a_quota_is_exceeded_then_details_and_reset_stand_in_the_error_alone() -> None:
    document = json.loads(render(DAILY)[2])
    assert document == {
        "error": {
            "message": "used up",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
            "details": {"reason": "cost", "limit": 10.5, "used": 1, "remaining": None},
            "resetAt": "2027-03-14T18:30:00Z",
        }
    }
    assert set(json.loads(render(errors.RateLimited("m"))[2])["error"]) == {"message", "type", "param", "code"}


async def asked(replies: Sequence[errors.ProxyError | None]) -> tuple[Any, list[float]]:
    """Call a server that gives these replies in order (`None`: success); return the exception and the times of arrival.

    The last reply is given to whoever asks once more.
    """
    arrivals: list[float] = []

    async def answer(_: web.Request) -> web.Response:
        arrivals.append(time.monotonic())
        error = replies[min(len(arrivals), len(replies)) - 1]
        if error is None:
            return web.json_response({"object": "list", "data": []})
        status, headers, body = render(error)
        fields = [(name.decode(), value.decode()) for name, value in headers]
        return web.Response(status=status, headers=fields, body=body)

    application = web.Application()
    application.router.add_get("/v1/models", answer)
    async with TestServer(application) as server:
        async with openai.AsyncOpenAI(api_key="k", base_url=str(server.make_url("/v1")), max_retries=2) as sdk:
            try:
                await sdk.models.list()
            except openai.APIStatusError as error:
                return error, arrivals
    return None, arrivals


@pytest.mark.parametrize("wait_s", [None, 0.01, 30, 100, 80_000])
async def test_sdk_when_a_daily_limit_is_reached_then_it_raises_at_once_however_soon_the_window_ends(wait_s) -> None:
    error, arrivals = await asked([errors.QuotaExceeded("m", details=DAILY.details, retry_after_s=wait_s)])
    assert type(error) is openai.RateLimitError
    assert (error.status_code, error.code, error.type) == (429, "insufficient_quota", "insufficient_quota")
    assert error.body["details"] == DAILY.details
    assert len(arrivals) == 1


async def test_sdk_when_a_short_window_is_full_then_it_waits_so_long_and_succeeds() -> None:
    wait_s = 0.7  # above the half second that it would wait by itself
    error, arrivals = await asked([errors.RateLimited("m", retry_after_s=wait_s), None])
    assert error is None
    assert len(arrivals) == 2
    assert arrivals[1] - arrivals[0] >= wait_s


async def test_sdk_when_a_short_window_stays_full_then_it_gives_up_with_the_code_of_a_passing_limit() -> None:
    error, arrivals = await asked([errors.RateLimited("m", retry_after_s=0.01)])
    assert type(error) is openai.RateLimitError
    assert (error.code, error.type, len(arrivals)) == ("rate_limit_exceeded", "rate_limit_exceeded", 3)


@pytest.mark.parametrize("wait_s", [None, 61])
async def test_sdk_when_waiting_is_in_vain_or_too_long_then_it_does_not_try_again(wait_s) -> None:
    error, arrivals = await asked([errors.RateLimited("m", retry_after_s=wait_s)])
    assert (error.code, len(arrivals)) == ("rate_limit_exceeded", 1)


async def test_sdk_when_the_quota_cannot_be_checked_then_it_tries_again() -> None:
    error, arrivals = await asked([errors.QuotaUnavailable("m", retry_after_s=0.01), None])
    assert (error, len(arrivals)) == (None, 2)


@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "images"])
def test_stream_event_when_the_quota_runs_out_then_the_sdk_reads_its_code(dialect: Dialect) -> None:
    event = stream_event(DAILY, dialect, sequence_number=2)
    with pytest.raises(openai.APIError, match="used up") as caught:
        next(streamed(event).chat.completions.create(model="m", messages=[], stream=True))
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    data = json.loads(event[event.index(b"{") :])
    assert data["error"]["resetAt"] == DAILY.reset_at
    assert dialect != "responses" or data["code"] == "insufficient_quota"


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
