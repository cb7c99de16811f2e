import asyncio

import pytest

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.exchange import Delivery
from proxy.ingress.client_body import ClientBody
from proxy.ingress.downstream import HttpDownstream
from proxy.openai import error_body
from tests.ingress.wire import request, serving

CHUNKED = "Transfer-Encoding: chunked"
CONTINUE = b"HTTP/1.1 100 Continue"


def reading(limit_bytes=1000, *, streamed=False, **limits):
    """A handler that answers with the body it read, or with the error that reading raised."""

    async def handler(asked):
        downstream = HttpDownstream(asked, Delivery(), 5.0)
        body = ClientBody(asked, Limits(**limits))
        try:
            whole = b"".join([piece async for piece in body.stream(limit_bytes)]) if streamed else None
            await downstream.send(200, "OK", (), await body.read(limit_bytes) if whole is None else whole)
        except InvalidRequest as error:
            status, headers, text = error_body.render(error)
            await downstream.send(status, "Refused", headers, text)
        return downstream

    return handler


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def post(*lines: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return request("/v1/x", *lines, method="POST", body=body, version=version)


@pytest.mark.parametrize("streamed", [False, True], ids=["read", "stream"])
async def test_body_when_framed_and_delivered_anyhow_then_it_is_read_as_it_was_sent(streamed):
    async with serving(reading(streamed=streamed)) as server:
        for pieces in (
            [post(body=b"x" * 1000)],
            [post(CHUNKED) + chunked(b"x" * 400, b"x" * 600)],
            [post("Content-Length: 1000"), b"x" * 300, b"x" * 700],
            [post(CHUNKED), b"3e8\r\n", b"x" * 1000, b"\r\n0\r\n", b"\r\n"],
        ):
            async with server.client() as client:
                for piece in pieces:
                    await client.say(piece)
                    await asyncio.sleep(0.005)
                answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"x" * 1000)
            assert answer.value(b"connection") is None


@pytest.mark.parametrize("streamed", [False, True], ids=["read", "stream"])
@pytest.mark.parametrize(("size", "status"), [(999, 200), (1000, 200), (1001, 413)])
async def test_body_when_near_the_limit_then_one_byte_decides(streamed, size, status):
    async with serving(reading(streamed=streamed)) as server:
        for wire in (post(body=b"x" * size), post(CHUNKED) + chunked(b"x" * size)):
            answer = await server.ask(wire)
            assert answer.status == status
            if status == 413:
                assert b"request_too_large" in answer.body


async def test_body_when_announced_too_large_then_it_is_refused_before_a_byte_of_it_came():
    async with serving(reading()) as server:
        answer = await server.ask(post("Content-Length: 1001"))
    assert answer.status == 413
    assert answer.value(b"connection") == b"close"


async def test_body_when_silent_then_408_says_so():
    async with serving(reading(body_idle_s=0.05)) as server:
        for wire in (post("Content-Length: 10") + b"x", post(CHUNKED) + b"5\r\nab"):
            answer = await server.ask(wire)
            assert answer.status == 408
            assert b"request_timeout" in answer.body
            assert answer.value(b"connection") == b"close"


async def test_body_when_it_drips_too_slowly_then_408():
    async with serving(reading(body_idle_s=0.1, body_min_bytes_per_s=1000)) as server, server.client() as client:

        async def drip():
            await client.say(post("Content-Length: 900"))
            while True:
                await client.say(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        answer = await client.answer()
        dripping.cancel()
        await asyncio.wait([dripping])
    assert answer.status == 408
    assert b"1000 bytes per second" in answer.body


@pytest.mark.parametrize("broken", [b"-2\r\n{}\r\n", b"0x2\r\n{}\r\n", b"2\r\n{}XX0\r\n", b"g\r\n", b"2;\n{}\r\n"])
@pytest.mark.parametrize("streamed", [False, True], ids=["read", "stream"])
async def test_body_when_its_chunks_are_malformed_then_400_at_once_and_the_connection_ends(broken, streamed):
    async with serving(reading(streamed=streamed)) as server, server.client() as client:
        await client.say(post(CHUNKED))
        await asyncio.sleep(0.02)
        async with asyncio.timeout(2):
            await client.say(broken)
            answer = await client.answer()
            assert answer.status == 400
            assert b"invalid_body" in answer.body
            assert answer.value(b"connection") == b"close"
            await client.rest()


@pytest.mark.parametrize("spelled", ["Expect: 100-continue", "expect: 100-Continue"])
async def test_expect_when_the_body_is_wanted_then_100_comes_first(spelled):
    async with serving(reading()) as server, server.client() as client:
        await client.say(post(spelled, "Content-Length: 2"))
        assert await client.head() == CONTINUE
        await client.say(b"{}")
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"{}")


async def test_expect_when_the_body_is_refused_then_no_100_comes():
    async with serving(reading()) as server:
        answer = await server.ask(post("Expect: 100-continue", "Content-Length: 1001"))
    assert answer.status == 413


async def test_expect_when_the_body_is_there_already_then_no_100_is_needed():
    async with serving(reading()) as server:
        answer = await server.ask(post("Expect: 100-continue", body=b"{}"))
    assert (answer.status, answer.body) == (200, b"{}")


async def test_expect_when_the_client_speaks_http_1_0_then_it_gets_no_100():
    async with serving(reading()) as server, server.client() as client:
        await client.say(post("Expect: 100-continue", "Content-Length: 2", version="1.0"))
        await asyncio.sleep(0.05)
        await client.say(b"{}")
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"{}")


async def test_body_when_the_client_vanishes_then_the_reader_is_cancelled():
    ended = []

    async def handler(asked):
        try:
            await ClientBody(asked, Limits()).read(1000)
        except BaseException as error:
            ended.append(type(error))
            raise

    async with serving(handler) as server:
        async with server.client() as client:
            await client.say(post("Content-Length: 10") + b"x")
            await asyncio.sleep(0.02)
            client.reset()
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.005)
    assert ended == [asyncio.CancelledError]
