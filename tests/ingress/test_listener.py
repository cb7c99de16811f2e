import asyncio
import gc
import io
import json
import logging
import weakref
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from proxy import logs
from proxy.config.schema import Limits
from proxy.errors import InternalError, Overloaded
from proxy.exchange import Delivery
from proxy.ingress.client_body import ClientBody
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.listener import RawRequest, cut_between_requests, error_response
from tests.fakes.garbage import garbage
from tests.ingress.wire import Client, request, serving, until

CANARY = b"sk-canary-0123456789"


async def echo(asked: RawRequest) -> web.Response:
    """Answer with what was understood of the request's head."""
    lines = [name + b": " + value for name, value in asked.raw_header_lines]
    return web.Response(body=b"\n".join([asked.target.encode("latin-1"), *lines]))


def described(answer) -> dict:
    assert answer.value(b"content-type") == b"application/json"
    assert answer.value(b"x-request-id") == answer.value(b"x-sidegate-trace-id")
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.fixture
def written():
    """What the process writes to its log, library loggers included."""
    root, raises = logging.getLogger(), logging.raiseExceptions
    before = (root.handlers[:], root.level)
    logs.configure("debug")
    stream = io.StringIO()
    root.handlers[0].setStream(stream)
    yield stream.getvalue
    root.handlers[:], root.level = before
    logging.raiseExceptions = raises


async def test_head_when_read_then_target_and_lines_are_as_on_the_wire():
    wire = b"GET /v1/%7Ea/..//?b=%20&c HTTP/1.1\r\nhOsT: a\r\nX-A:  1 \r\nx-a: \xe4\r\n\r\n"
    async with serving(echo) as server:
        answer = await server.ask(wire)
    assert answer.body.split(b"\n") == [b"/v1/%7Ea/..//?b=%20&c", b"hOsT: a", b"X-A: 1", b"x-a: \xe4"]


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        ((), False),
        (("Upgrade: websocket", "Connection: Upgrade"), True),
        (("Upgrade: WebSocket", "Connection: keep-alive, Upgrade"), True),
        (("Upgrade: websocket",), False),
        (("Upgrade: h2c", "Connection: Upgrade"), False),
    ],
)
async def test_upgrade_when_asked_for_then_only_a_websocket_counts(lines, upgrade):
    seen = []

    async def handler(asked):
        seen.append(asked.is_upgrade)
        return web.Response()

    async with serving(handler) as server:
        assert (await server.ask(request("/", *lines))).status == 200
    assert seen == [upgrade]


MALFORMED = {
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: %b\x00b\r\n\r\n",
    "CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: %b\rb\r\n\r\n",
    "LF ends a line": b"GET / HTTP/1.1\r\nHost: a\nX-A: %b\n\r\n\r\n",
    "folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n %b\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization Bearer %b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer %b\r\n\r\n",
    "odd name": b"GET / HTTP/1.1\r\nHost: a\r\nX(A): %b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n"
    b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 1\r\n\r\n0\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nContent-Length: +1\r\n\r\na",
    "coding that is not the last": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n"
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding that we do not decode": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding of nothing": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "no coding and a length": b"POST / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\nTransfer-Encoding:\r\n"
    b"Content-Length: 1\r\n\r\na",
    "no host that could be": b"GET / HTTP/1.1\r\nHost: a b\r\nX-A: %b\r\n\r\n",
    "host and path": b"GET / HTTP/1.1\r\nHost: a/b\r\nX-A: %b\r\n\r\n",
    "HTTP/2 without its preface": b"GET / HTTP/2.0\r\nHost: a\r\nX-A: %b\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nX-A: %b\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-A: %b\r\n\r\n",
    "no HTTP": b"%b\r\n\r\n",
    "no method": b"%b /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: a\r\nX-A: %b\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00%b\r\n\r\n",
}


@pytest.mark.parametrize("wire", MALFORMED.values(), ids=MALFORMED.keys())
async def test_head_when_malformed_then_400_quotes_nothing_and_the_connection_ends(wire, written):
    handled = []

    async def handler(asked):
        handled.append(asked)
        return web.Response()

    async with serving(handler) as server, server.client() as client:
        await client.say((wire % CANARY) + request("/v1/smuggled"))
        answer = await client.answer()
        assert answer.status == 400
        assert described(answer)["code"] == "malformed_request"
        assert b"canary" not in answer.head + answer.body
        assert await client.rest() == b""
        assert [type(error).__name__ for error in server.errors] == ["InvalidRequest"]
    assert handled == []
    assert "canary" not in written()
    assert "Traceback" not in written()


@pytest.mark.parametrize("wire", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\nHost: a\n\n"], ids=["TLS", "bare LF"])
async def test_head_when_malformed_without_an_end_then_400_at_once(wire):
    async with serving(echo, keepalive_s=5.0) as server, asyncio.timeout(4):
        assert (await server.ask(wire)).status == 400


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", id="request line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 5000 + b"\r\n\r\n", id="value"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 5000 + b": 1\r\n\r\n", id="name"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: 1\r\n" * 40 + b"\r\n", id="too many"),
    ],
)
async def test_head_when_beyond_the_limits_then_431(wire):
    async with serving(echo, Limits(header_line_bytes=4096, headers=32)) as server, server.client() as client:
        await client.say(wire)
        answer = await client.answer()
        assert answer.status == 431
        assert described(answer)["code"] == "headers_too_large"
        assert await client.rest() == b""


async def test_head_when_just_within_the_limits_then_it_is_served():
    async with serving(echo, Limits(header_line_bytes=4096, headers=32)) as server:
        assert (await server.ask(request("/", "X-A: " + "a" * 4000))).status == 200
        assert (await server.ask(request("/", *["X-A: 1"] * 30))).status == 200


async def test_connections_when_all_belong_to_refused_uploads_then_each_gives_way_to_a_new_one():
    async def refuse(asked):
        return web.Response(body=b"refused") if asked.content_length else await echo(asked)

    async with serving(refuse, Limits(connections=4)) as server, AsyncExitStack() as stack:
        uploads = [await stack.enter_async_context(server.client()) for _ in range(4)]
        for upload in uploads:
            await upload.say(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
            assert (await upload.answer()).body == b"refused"
        for _ in range(8):
            assert (await server.ask(request("/"))).status == 200
        assert await uploads[0].rest() == b""


async def test_connection_when_above_the_cap_then_one_503_and_the_others_go_on():
    async with serving(echo, Limits(connections=2)) as server:
        async with server.client() as first, server.client() as second:
            for client in (first, second):
                await client.say(request("/"))
                assert (await client.answer()).status == 200
            async with server.client() as third:
                answer = await third.answer()
                assert (answer.status, answer.value(b"connection")) == (503, b"close")
                assert json.loads(answer.body)["error"]["code"] == "too_many_connections"
                assert answer.value(b"retry-after") == b"1"
                assert await third.rest() == b""
            assert [type(error) for error in server.errors] == [Overloaded]
            await first.say(request("/"))
            assert (await first.answer()).status == 200
        await until(lambda: not server.manager.connections)
        assert (await server.ask(request("/"))).status == 200


async def test_connection_when_a_request_follows_another_at_once_then_answers_keep_their_order():
    async with serving(echo) as server, server.client() as client:
        await client.say(b"".join(request(f"/{number}") for number in range(50)))
        for number in range(50):
            assert (await client.answer()).body.startswith(b"/%d\n" % number)


async def test_connection_when_idle_or_slow_with_a_head_then_it_is_closed():
    async with serving(echo, keepalive_s=0.1) as server:
        for said in (b"", b"GET / HTTP/1.1\r\nHos", request("/") + b"GET / HTT"):
            async with server.client() as client:
                await client.say(said)
                if said.startswith(request("/")):
                    assert (await client.answer()).status == 200
                assert await client.rest() == b""


async def test_connection_when_in_use_then_the_idle_time_does_not_count():
    async def slow(_asked):
        await asyncio.sleep(0.3)
        return web.Response(text="late")

    async with serving(slow, keepalive_s=0.1) as server:
        assert (await server.ask(request("/"))).body == b"late"


async def test_handler_when_it_raises_then_the_connection_closes_and_the_log_has_no_text(written):
    async def broken(_asked):
        raise ValueError(CANARY.decode())

    async with serving(broken) as server, server.client() as client:
        await client.say(request("/"))
        assert await client.rest() == b""
        await until(lambda: not server.manager.connections)
    assert "ValueError" in written()
    assert "canary" not in written()


async def test_handler_when_it_is_cancelled_while_the_client_waits_then_the_connection_closes():
    async def cancelled(_asked):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with serving(cancelled) as server, server.client() as client:
        await client.say(request("/"))
        assert await client.rest() == b""
        await until(lambda: not server.manager.connections)


@pytest.mark.parametrize("leave", [Client.reset, lambda client: client.writer.close()], ids=["reset", "close"])
async def test_client_when_it_leaves_then_the_handler_is_cancelled(leave):
    log = []

    async def waiting(_asked):
        log.append("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async with serving(waiting) as server, server.client() as client:
        await client.say(request("/"))
        await until(lambda: log)
        leave(client)
        await until(lambda: log == ["began", "cancelled"])
        await until(lambda: not server.manager.connections)


async def test_client_when_it_leaves_then_nothing_of_its_request_waits_for_the_garbage_collector():
    held = weakref.WeakSet()

    class Held:
        """What a handler has in its hands, such as a body."""

    async def waiting(_asked):
        mine = Held()
        held.add(mine)
        await asyncio.Event().wait()

    async with serving(waiting) as server:
        gc.disable()
        try:
            async with server.client() as client:
                await client.say(request("/"))
                await until(lambda: held)
            await until(lambda: not server.manager.connections)
            await until(lambda: not held)
        finally:
            gc.enable()


CHUNKED = request("/", "Transfer-Encoding: chunked", method="POST")


@pytest.mark.parametrize(
    "wire",
    [CHUNKED + b"2\r\nok\r\n0\r\n\r\n", CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nok\r\nzz\r\n", b"no HTTP\r\n\r\n"],
    ids=["whole", "the client leaves", "malformed chunk", "malformed head"],
)
async def test_connection_when_it_is_over_then_nothing_of_it_waits_for_the_garbage_collector(wire):
    async def reading(asked):
        await ClientBody(asked, Limits()).read(1000)
        downstream = HttpDownstream(asked, Delivery(), 5.0)
        await downstream.send(200, "OK", (), b"ok")
        return downstream

    async with serving(reading) as server:
        with garbage() as left:
            async with server.client() as client:
                await client.say(wire)
                await asyncio.sleep(0.05)
            await until(lambda: not server.manager.connections)
            await asyncio.sleep(0.01)
    assert not {"SafeHandler", "AiohttpOutlet", "RawRequest", "_ErrInfo", "ClientBody"} & left


async def test_body_when_nobody_reads_it_then_the_client_still_gets_its_answer():
    async def refusing(_asked):
        response = web.Response(status=403, text="no")
        response.force_close()
        return response

    async with serving(refusing) as server, server.client() as client:
        await client.say(request("/", "Content-Length: 400000", method="POST"), bytes(200_000))
        assert (await client.answer()).body == b"no"
        await client.say(bytes(200_000))
        assert await client.rest() == b""


def test_error_response_when_rendered_then_it_carries_what_an_sdk_and_a_log_reader_need():
    response = error_response(Overloaded("busy", retry_after_s=1.0))
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["x-request-id"] == response.headers["x-sidegate-trace-id"]
    assert json.loads(response.body)["error"]["message"] == "busy"
    assert error_response(InternalError("x")).headers["x-request-id"] != response.headers["x-request-id"]


CHUNKS = b"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext\r\nabc\r\n0\r\n"
TRAILERS = b"X-Sidegate-User: eve\r\nX-Last: trailer\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: b\r\n\r\n"


async def said(asked: RawRequest) -> web.Response:
    """Answer with the head and the body."""
    return web.Response(body=(await echo(asked)).body + b"|" + await asked.read())


@pytest.mark.parametrize("trailers", [b"", TRAILERS], ids=["none", "two"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_request_when_it_follows_trailers_then_it_has_only_its_own_headers(trailers, size):
    first = CHUNKS + trailers + b"\r\n"
    async with serving(said) as server, server.client() as client:
        for _ in range(3):
            for at in range(0, len(first), size):
                await client.say(first[at : at + size])
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"/first\nHost: a\nTransfer-Encoding: chunked|abc"
            await client.say(SECOND)
            assert (await client.answer()).body == b"/second\nHost: b|"


@pytest.mark.parametrize("trailers", [b"", TRAILERS], ids=["none", "two"])
async def test_requests_when_they_arrive_together_with_a_chunked_body_then_each_has_only_its_own_headers(trailers):
    first = CHUNKS + trailers + b"\r\n"
    wire = first + SECOND + first + SECOND
    async with serving(said) as server, server.client() as client:
        for at in range(1, len(wire), 3):
            await client.say(wire[:at])
            await asyncio.sleep(0)
            await client.say(wire[at:])
            for body in (b"/first\nHost: a\nTransfer-Encoding: chunked|abc", b"/second\nHost: b|") * 2:
                assert (await client.answer()).body == body


async def test_requests_when_too_many_arrive_together_with_trailers_then_the_last_are_not_answered():
    async with serving(said) as server, server.client() as client:
        await client.say((CHUNKS + TRAILERS + b"\r\n") * 20 + SECOND)
        data = await client.rest()
    assert 0 < data.count(b"/first\nHost: a\nTransfer-Encoding: chunked|abc") < 20
    assert b"/second" not in data
    assert b"eve" not in data


@pytest.mark.parametrize(
    ("tail", "data", "pieces"),
    [
        (b"", b"a\r\n\r\nGET", [b"a\r\n\r\n", b"GET"]),
        (b"0\r\n\r", b"\nGET", [b"\n", b"GET"]),
        (b"\r\n\r\n", b"GET", [b"GET"]),
        (b"x\r\n", b"\r\n", [b"\r\n"]),
        (b"", b"\r\n\r\n\r\nA", [b"\r\n\r\n\r\n", b"A"]),
        (b"", b"a\r\n\r\na\r\n\r\n1", [b"a\r\n\r\na\r\n\r\n1"]),
        (b"", b"\r\n\r\nA" * 20, [b"\r\n\r\n", *[b"A\r\n\r\n"] * 15, b"A" + b"\r\n\r\nA" * 4]),
    ],
)
def test_reading_when_requests_may_meet_in_it_then_it_is_cut_there(tail, data, pieces):
    assert cut_between_requests(tail, data) == pieces


async def test_request_when_it_follows_while_the_chunked_one_is_still_answered_then_it_is_answered():
    hold = asyncio.Event()

    async def waiting(asked: RawRequest) -> web.Response:
        await hold.wait()
        return await said(asked)

    async with serving(waiting) as server, server.client() as client:
        await client.say(CHUNKS + TRAILERS + b"\r\n")
        await asyncio.sleep(0.02)
        await client.say(SECOND)
        await asyncio.sleep(0.02)
        hold.set()
        for body in (b"/first\nHost: a\nTransfer-Encoding: chunked|abc", b"/second\nHost: b|"):
            assert (await client.answer()).body == body
