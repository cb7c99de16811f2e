import asyncio

import pytest

from proxy.errors import ClientDisconnected
from proxy.event_loop.write_batching import Outlet
from proxy.exchange import Delivery
from proxy.ingress.aiohttp_streams import AiohttpOutlet
from proxy.ingress.downstream import HttpDownstream
from tests.ingress.wire import request, serving, until

HEADERS = ((b"X-CaSe", b"Va lue\xe9"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"x-empty", b""))

LARGE = bytes(range(256)) * 32_000


def answering(script, *, delivery=None, write_stall_s=5.0, seen=None):
    """A handler that runs `script(downstream)`."""

    async def handler(asked):
        downstream = HttpDownstream(asked, delivery or Delivery(), write_stall_s)
        try:
            await script(downstream)
        except BaseException as error:
            if seen is not None:
                seen.append(error)
            raise
        return downstream

    return handler


async def streamed(downstream):
    await downstream.start(200, "OK", HEADERS, None)
    await downstream.write(b"hello")
    await downstream.write(b"")
    await downstream.write(b"world")
    await downstream.finish()


async def whole(downstream):
    await downstream.send(418, "I'm a teapot \u2615", HEADERS, b"hello")


async def measured(downstream):
    await downstream.start(200, "", (), 10)
    await downstream.write(b"hello")
    await downstream.write(b"world")
    await downstream.finish()


async def raw_exchange(script, wire: bytes) -> bytes:
    async with serving(answering(script)) as server, server.client() as client:
        await client.say(wire)
        return await client.rest()


HEAD_LINES = b"X-CaSe: Va lue\xe9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nx-empty: \r\n"
CLOSE = "Connection: close"


@pytest.mark.parametrize(
    ("script", "wire", "expected"),
    [
        pytest.param(
            streamed,
            request("/", CLOSE),
            b"HTTP/1.1 200 OK\r\n" + HEAD_LINES + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
            id="chunked",
        ),
        pytest.param(
            streamed,
            request("/", version="1.0"),
            b"HTTP/1.0 200 OK\r\n" + HEAD_LINES + b"Connection: close\r\n\r\nhelloworld",
            id="HTTP/1.0 has no chunks",
        ),
        pytest.param(
            whole,
            request("/", CLOSE),
            b"HTTP/1.1 418 I'm a teapot ?\r\n" + HEAD_LINES + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
            id="whole",
        ),
        pytest.param(
            whole,
            request("/", CLOSE, method="HEAD"),
            b"HTTP/1.1 418 I'm a teapot ?\r\n" + HEAD_LINES + b"Content-Length: 5\r\nConnection: close\r\n\r\n",
            id="HEAD has no body",
        ),
        pytest.param(
            measured,
            request("/", CLOSE),
            b"HTTP/1.1 200 \r\nContent-Length: 10\r\nConnection: close\r\n\r\nhelloworld",
            id="length and no reason",
        ),
    ],
)
async def test_answer_when_sent_then_these_bytes_leave(script, wire, expected):
    assert await raw_exchange(script, wire) == expected


@pytest.mark.parametrize("status", [204, 304])
async def test_answer_when_it_can_have_no_body_then_it_has_no_framing(status):
    async def script(downstream):
        await downstream.start(status, "None", (), None)
        await downstream.finish()

    async def sending(downstream):
        await downstream.send(status, "None", (), b"")

    for way in (script, sending):
        wire = await raw_exchange(way, request("/", CLOSE))
        assert wire == b"HTTP/1.1 %d None\r\nConnection: close\r\n\r\n" % status


async def test_answer_when_a_204_announces_a_length_then_the_client_is_not_told_to_wait_for_it():
    async def script(downstream):
        await downstream.start(204, "None", (), 5)
        await downstream.finish()

    assert await raw_exchange(script, request("/", CLOSE)) == b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(("length", "line"), [(None, None), (7, b"7")])
async def test_answer_to_head_when_streamed_then_only_its_length_is_told(length, line):
    async def script(downstream):
        await downstream.start(200, "OK", (), length)
        await downstream.finish()

    async with serving(answering(script)) as server, server.client() as client:
        for _ in range(2):
            await client.say(request("/", method="HEAD"))
            answer = await client.answer(to_head=True)
            assert (answer.value(b"content-length"), answer.value(b"transfer-encoding")) == (line, None)


@pytest.mark.parametrize("script", [streamed, whole, measured])
async def test_connection_when_the_client_keeps_it_then_it_serves_again(script):
    async with serving(answering(script)) as server, server.client() as client:
        for method in ("GET", "POST", "GET"):
            await client.say(request("/", method=method, body=b"{}" if method == "POST" else b""))
            answer = await client.answer()
            assert answer.body in (b"hello", b"helloworld")
            assert answer.value(b"connection") is None


async def test_connection_when_http_1_0_asks_to_keep_it_then_it_is_told_so():
    async with serving(answering(whole)) as server, server.client() as client:
        for _ in range(2):
            await client.say(request("/", "Connection: keep-alive", version="1.0"))
            assert (await client.answer()).value(b"connection") == b"keep-alive"


async def test_connection_when_drained_then_this_answer_is_its_last():
    async def script(downstream):
        downstream.refuse_more()
        await streamed(downstream)

    async with serving(answering(script)) as server, server.client() as client:
        await client.say(request("/"))
        assert (await client.answer()).value(b"connection") == b"close"
        assert await client.rest() == b""


async def test_answer_when_it_precedes_the_end_of_the_request_then_the_connection_is_not_kept():
    async with serving(answering(whole)) as server:
        answer = await server.ask(request("/", "Content-Length: 5", method="POST"))
    assert (answer.status, answer.value(b"connection")) == (418, b"close")


@pytest.mark.parametrize("length", [None, 10], ids=["chunked", "length"])
async def test_body_when_cut_then_what_was_written_arrives_without_its_end(length):
    async def script(downstream):
        await downstream.start(200, "OK", (), length)
        await downstream.write(b"x" * 5)
        downstream.cut()

    async with serving(answering(script)) as server, server.client() as client:
        await client.say(request("/"))
        await client.head()
        assert await client.rest() == (b"5\r\nxxxxx\r\n" if length is None else b"xxxxx")


async def test_delivery_when_bytes_leave_then_status_time_and_size_are_noted():
    for script, size in ((streamed, 10), (whole, 5), (measured, 10)):
        delivery = Delivery()
        async with serving(answering(script, delivery=delivery)) as server:
            answer = await server.ask(request("/"))
        assert (delivery.status, delivery.bytes) == (answer.status, size)
        assert delivery.committed_at is not None


async def sent(downstream):
    await downstream.send(200, "", (), LARGE)


async def written(downstream):
    await downstream.start(200, "", (), None)
    await downstream.write(LARGE)
    await downstream.finish()


@pytest.mark.parametrize("script", [sent, written])
async def test_body_when_large_then_no_write_is_for_all_of_it_and_others_have_their_turn(script, monkeypatch):
    sizes, turns = [], []

    def noting(write):
        return lambda outlet, data: sizes.append(len(data)) or write(outlet, data)

    async def counting():
        while True:
            turns.append(len(sizes))
            await asyncio.sleep(0)

    for kind in (Outlet, AiohttpOutlet):
        monkeypatch.setattr(kind, "write", noting(kind.write))
    delivery = Delivery()
    async with serving(answering(script, delivery=delivery)) as server, server.client() as client:
        others = asyncio.create_task(counting())
        await client.say(request("/"))
        answer = await client.answer()
        others.cancel()
    assert answer.body == LARGE
    assert delivery.bytes == len(LARGE)
    assert max(sizes) < 1_100_000
    assert len(set(turns)) > len(LARGE) // 1_100_000


async def test_body_when_large_and_not_read_then_what_is_left_counts_as_unsent():
    seen, made = [], []

    async def script(downstream):
        made.append(downstream)
        await downstream.send(200, "", (), LARGE * 2)

    async with serving(answering(script, seen=seen)) as server, server.client() as client:
        await client.say(request("/"))
        await until(lambda: made and made[0].unsent_bytes > len(LARGE))
        made[0].drop()
        await until(lambda: seen)
    # Told where it waits for the client, cancelled between two pieces: how far it had come is up to the kernel.
    assert isinstance(seen[0], ClientDisconnected | asyncio.CancelledError)
    assert made[0].unsent_bytes == 0


@pytest.mark.parametrize("is_paused", [False, True], ids=["between two pieces", "while the client does not read"])
async def test_body_when_large_and_ended_by_us_then_what_follows_comes_behind_all_of_it(is_paused, monkeypatch):
    delivery, made, sizes = Delivery(), [], []
    for kind in (Outlet, AiohttpOutlet):
        write = kind.write
        monkeypatch.setattr(kind, "write", lambda to, data, write=write: sizes.append(len(data)) or write(to, data))

    async def script(downstream):
        made.append(asyncio.current_task())
        await downstream.start(200, "OK", (), None)
        try:
            await downstream.write(LARGE)
        except asyncio.CancelledError:
            await downstream.write(b"last words")
            downstream.cut()

    async with serving(answering(script, delivery=delivery)) as server, server.client() as client:
        if is_paused:
            client.writer.transport.pause_reading()
        await client.say(request("/"))
        await until(lambda: delivery.bytes)
        if is_paused:
            await asyncio.sleep(0.05)
        made[0].cancel()
        await until(lambda: delivery.bytes > len(LARGE))
        if is_paused:
            client.writer.transport.resume_reading()
        await client.head()
        body = await client.rest()
    assert delivery.bytes == len(LARGE) + 10
    assert max(sizes) < 1_100_000  # nothing is copied whole, as memory may be short
    assert body.endswith(b"\r\na\r\nlast words\r\n")
    assert whole_of(body) == LARGE + b"last words"


def whole_of(chunks: bytes) -> bytes:
    """Return what chunks hold that have no end."""
    body = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        body += chunks[: int(size, 16)]
        chunks = chunks[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("is_cut_first", [False, True])
async def test_body_when_large_and_the_client_leaves_then_what_was_never_written_was_not_delivered(is_cut_first):
    delivery, seen, made = Delivery(), [], []

    async def script(downstream):
        made.append(downstream)
        await downstream.start(200, "OK", (), None)
        if is_cut_first:
            downstream.cut()
        await downstream.write(LARGE)

    async with serving(answering(script, delivery=delivery, seen=seen)) as server, server.client() as client:
        client.writer.transport.pause_reading()
        await client.say(request("/"))
        if not is_cut_first:
            await until(lambda: made and made[0].unsent_bytes)
            client.reset()
        await until(lambda: seen)
    assert isinstance(seen[0], ClientDisconnected | asyncio.CancelledError)
    assert delivery.bytes % (1 << 20) == 0
    assert delivery.bytes < len(LARGE) and (delivery.bytes == 0 or not is_cut_first)
    assert made[0].unsent_bytes == 0


async def test_writing_when_the_client_does_not_read_then_it_is_cut_and_memory_stays_bounded():
    seen, sizes = [], []

    async def endless(downstream):
        await downstream.start(200, "OK", (), None)
        while True:
            await downstream.write(bytes(65_536))
            sizes.append(downstream.unsent_bytes)

    async with serving(answering(endless, write_stall_s=0.2, seen=seen)) as server, server.client() as client:
        client.writer.transport.pause_reading()
        await client.say(request("/"))
        await until(lambda: seen)
    (error,) = seen
    assert isinstance(error, ClientDisconnected)
    assert error.code == "client_write_stalled"
    assert max(sizes) < 1_000_000


async def test_writing_when_the_client_is_gone_then_it_is_told_so_or_cancelled():
    seen = []

    async def endless(downstream):
        await downstream.start(200, "OK", (), None)
        while True:
            await downstream.write(bytes(65_536))
            await asyncio.sleep(0)

    async with serving(answering(endless, seen=seen)) as server, server.client() as client:
        await client.say(request("/"))
        await client.head()
        client.reset()
        await until(lambda: seen)
    assert isinstance(seen[0], ClientDisconnected | asyncio.CancelledError)


async def test_writing_when_the_connection_was_cut_then_it_says_so():
    seen = []

    async def script(downstream):
        await downstream.start(200, "OK", (), None)
        downstream.cut()
        downstream.cut()
        await downstream.write(b"x")

    async with serving(answering(script, seen=seen)) as server, server.client() as client:
        await client.say(request("/"))
        await client.rest()
        await until(lambda: seen)
    assert isinstance(seen[0], ClientDisconnected)
