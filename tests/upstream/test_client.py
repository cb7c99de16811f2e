"""What both kinds of client promise, tested on both against raw sockets."""

import asyncio
import errno
import time
import tracemalloc

import pytest

from proxy.errors import InvalidRequest, NoUpstreamAvailable, Overloaded, UpstreamFailed, UpstreamTimeout
from tests.upstream.peer import OK, Talk, answering, answering_once, body_of, client_for, get, peer, post, until


@pytest.fixture(params=["lean", "aiohttp"])
def kind(request):
    return request.param


async def _pieces(*pieces):
    for piece in pieces:
        yield piece


# ---- what goes out


async def test_request_when_sent_keeps_order_case_and_bytes_and_adds_only_host_and_framing(kind):
    heard = []
    headers = [(b"X-b", b"1"), (b"x-A", "ü".encode()), (b"X-b", b"2"), (b"accept", b"*/*")]
    async with peer(answering(OK, heard)) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(post(provider.url + "/v1/a%2Fb/../c?x=1&&y=%20", b"{}", headers=headers))
        assert await body_of(reply) == b"ok"
    lines = heard[0].head.split(b"\r\n")[:-2]
    assert lines[0] == b"POST /v1/a%2Fb/../c?x=1&&y=%20 HTTP/1.1"
    assert lines[1] == b"Host: localhost:%d" % provider.port
    assert lines[2:-1] == [b"X-b: 1", b"x-A: \xc3\xbc", b"X-b: 2", b"accept: */*"]
    assert lines[-1] == b"Content-Length: 2"
    assert heard[0].body == b"{}"


@pytest.mark.parametrize(
    ("method", "body", "length", "framing"),
    [
        ("GET", None, None, None),
        ("POST", b"", None, b"Content-Length: 0"),
        ("POST", None, None, b"Content-Length: 0"),
        ("POST", b"x" * 300_000, None, b"Content-Length: 300000"),
        ("POST", "stream", None, b"Transfer-Encoding: chunked"),
        ("POST", "stream", 11, b"Content-Length: 11"),
    ],
)
async def test_body_when_given_in_any_form_is_framed_once(kind, method, body, length, framing):
    heard = []
    async with peer(answering(OK, heard)) as provider, client_for(provider.url, kind) as client:
        source = _pieces(b"hello ", b"", b"world") if body == "stream" else body
        reply = await client.send(get(provider.url + "/", method=method, body=source, content_length=length))
        await body_of(reply)
    fields = [line for line in heard[0].head.split(b"\r\n") if line.lower().startswith((b"content-l", b"transfer"))]
    assert fields == ([framing] if framing else [])
    assert heard[0].body == (b"hello world" if body == "stream" else body or b"")


@pytest.mark.parametrize(("kind", "framing"), [("lean", b""), ("aiohttp", b"Content-Length: 0\r\n")])
async def test_delete_without_body_when_sent_is_framed_as_the_kind_documents(kind, framing):
    heard = []
    async with peer(answering(OK, heard)) as provider, client_for(provider.url, kind) as client:
        await body_of(await client.send(get(provider.url + "/", method="DELETE")))
    assert heard[0].head == b"DELETE / HTTP/1.1\r\nHost: localhost:%d\r\n%b\r\n" % (provider.port, framing)


@pytest.mark.parametrize("pieces", [(b"123", b"45"), (b"123", b"456789")])
async def test_body_when_not_as_long_as_announced_fails_without_completing_the_request(kind, pieces):
    got = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        rest = await talk.reader.read()
        assert len(rest) < 6
        got.set()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        with pytest.raises(InvalidRequest):
            await client.send(post(provider.url + "/", _pieces(*pieces), content_length=6))
        await asyncio.wait_for(got.wait(), 5)


async def test_body_when_its_iterator_fails_raises_that_error_and_drops_the_connection(kind):
    class Left(UpstreamFailed):
        pass

    async def leaving():
        yield b"some"
        raise Left("gone")

    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.gone()
        gone.set()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        with pytest.raises(Left):
            await client.send(post(provider.url + "/", leaving()))
        await asyncio.wait_for(gone.wait(), 5)
        await until(lambda: client.stats().open == 0)


async def test_on_sent_when_connected_is_called_once_and_not_before(kind):
    calls = []
    async with peer(answering(OK)) as provider, client_for(provider.url, kind) as client:
        for _ in range(2):
            await body_of(await client.send(get(provider.url + "/", on_sent=lambda: calls.append(1))))
        assert calls == [1, 1]
    async with client_for(provider.url, kind) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.send(get(provider.url + "/", on_sent=lambda: calls.append(1)))
        assert caught.value.code == "upstream_connect_failed"
        assert not caught.value.sent
        assert calls == [1, 1]


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://other.example/", []),
        ("{base}.evil.example/", []),
        ("{base}@evil.example/", []),
        ("{base}/a b", []),
        ("{base}/a\r\nX: y", []),
        ("{base}/#f", []),
        ("{base}", []),
        ("{base}/", [(b"A", b"b\r\nC: d")]),
        ("{base}/", [(b"A\nB", b"b")]),
        ("{base}/", [(b"A", b"b\0")]),
    ],
)
async def test_send_when_the_request_could_be_misread_refuses_before_connecting(kind, url, headers):
    async with peer(answering(OK)) as provider, client_for(provider.url, kind) as client:
        with pytest.raises((ValueError, InvalidRequest)):
            await client.send(get(url.format(base=provider.url), headers=headers))
        assert not provider.heard


# ---- what comes back


async def test_answer_when_read_keeps_status_reason_and_raw_headers(kind):
    answer = (
        b"HTTP/1.1 418 Short \xe4\xc3\xa4\r\nX-a: 1\r\nx-A:  2 \r\nDATE: \xff\r\nEmpty:\r\nContent-Length: 3\r\n\r\nabc"
    )
    async with peer(answering(answer)) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        assert (reply.status, reply.reason) == (418, "Short äÃ¤")
        fields = [(name, value) for name, value in reply.headers if name != b"Content-Length"]
        assert fields == [(b"X-a", b"1"), (b"x-A", b"2"), (b"DATE", b"\xff"), (b"Empty", b"")]
        assert await body_of(reply) == b"abc"
        assert await reply.read() == b""


@pytest.mark.parametrize(
    ("method", "answer", "body", "reused"),
    [
        ("GET", OK, b"ok", True),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nT: 1\r\n\r\n", b"ok", True),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"", True),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 102 Processing\r\n\r\n" * 300 + OK, b"ok", True),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, b"ok", True),
        ("GET", b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    ],
)
async def test_answer_when_ended_returns_its_body_and_the_connection_if_it_may(kind, method, answer, body, reused):
    async with peer(answering(answer)) as provider, client_for(provider.url, kind) as client:
        for _ in range(2):
            reply = await client.send(get(provider.url + "/", method=method))
            assert await body_of(reply) == body
            await asyncio.sleep(0)
        assert provider.connections == (1 if reused else 2)


async def test_answer_when_delimited_by_close_ends_with_it(kind):
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with peer(answering_once(answer)) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        assert await body_of(reply) == b"all of it"
        await until(lambda: client.stats().open == 0)


async def test_answer_when_in_pieces_is_returned_as_it_arrives(kind):
    more = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await more.wait()
        await talk.say(b"6\r\nsecond\r\n0\r\n\r\n")

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        assert await reply.read() == b"first"
        assert not reply.complete
        more.set()
        assert await reply.read() == b"second"
        assert await reply.read() == b""
        assert reply.complete
        reply.close()


@pytest.mark.parametrize(
    ("head", "cut"),
    [
        (b"Transfer-Encoding: chunked", b"5\r\nab"),
        (b"Transfer-Encoding: chunked", b"2\r\nab\r\n"),
        (b"Transfer-Encoding: chunked", b"2\r\nab\r\n0\r\n"),
        (b"Content-Length: 5", b"ab"),
    ],
)
async def test_answer_when_cut_delivers_what_came_and_then_fails(kind, head, cut):
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + cut
    async with peer(answering_once(answer)) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        with pytest.raises(UpstreamFailed) as caught:
            assert await reply.read() == b"ab"
            await reply.read()
        assert caught.value.code == "upstream_body_cut"
        with pytest.raises(UpstreamFailed):
            await reply.read()
        reply.close()
        await until(lambda: client.stats().open == 0)


async def test_answer_when_reset_in_its_middle_fails_as_cut(kind):
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nab")
        await asyncio.sleep(0.05)
        talk.reset()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        with pytest.raises(UpstreamFailed) as caught:
            await body_of(reply)
        assert caught.value.code == "upstream_body_cut"
        reply.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nConte"])
async def test_answer_when_the_provider_closes_before_its_head_ends_fails_as_closed_and_sent(kind, answer):
    async with peer(answering_once(answer)) as provider, client_for(provider.url, kind) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.send(get(provider.url + "/"))
        assert caught.value.code == "upstream_closed"
        assert caught.value.sent
        assert provider.connections == 1


_STRICT = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", "duplicate length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", "length list"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab", "signed length"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nab", "length overflow"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "length and coding"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nab", "negative chunk size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab", "chunk size overflow"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX0\r\n\r\n", "chunk longer than said"),
    (b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 2\r\n\r\nab", "CR in a value"),
    (b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 2\r\n\r\nab", "NUL in a value"),
    (b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nab", "CR in the reason"),
    (b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nab", "no colon"),
    (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "101"),
    (b"HTTP/1.1 101 Switching\r\n\r\n", "bare 101"),
    (b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nab", "status"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 40_000 + b"\r\n\r\n", "long line"),
    (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n", "many lines"),
]
_STRICTER = [
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "two codings"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "unknown coding"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab", "identity coding"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "coding twice"),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "coding in 1.0"),
    (b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 2\r\n\r\nab", "bare LF"),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nab", "folded line"),
    (b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nab", "NUL in the reason"),
    (b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nab", "status 99"),
    (b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "version"),
    (b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "RTSP"),
    (b"HTTP/1.1 102 Processing\r\n\r\n" * 1025 + OK, "1025 interim answers"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nab\r\n0\r\n\r\n", "blank behind size"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: b\r\n" * 300 + b"\r\n", "many trailers"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"x" * 600_000, "endless trailer"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 600_000, "endless extension"),
    (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 600_000, "endless line"),
]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [pytest.param("lean", answer, id=f"lean {name}") for answer, name in _STRICT + _STRICTER]
    + [pytest.param("aiohttp", answer, id=f"aiohttp {name}") for answer, name in _STRICT],
)
async def test_answer_when_malformed_fails_and_drops_the_connection(kind, answer):
    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        talk.writer.write(answer)
        await talk.gone()
        gone.set()

    async with peer(script) as provider, client_for(provider.url, kind, gap_s=5, first_byte_s=5) as client:
        with pytest.raises(UpstreamFailed) as caught:
            reply = await client.send(get(provider.url + "/"))
            try:
                await body_of(reply)
            finally:
                reply.close()
        assert caught.value.code == "upstream_protocol_error"
        assert "x" * 20 not in caught.value.message
        await asyncio.wait_for(gone.wait(), 5)
        await until(lambda: client.stats().open == 0)


# ---- connections


async def test_requests_when_sequential_reuse_one_connection(kind):
    async with peer(answering(OK)) as provider, client_for(provider.url, kind) as client:
        for _ in range(200):
            assert await body_of(await client.send(post(provider.url + "/", b"{}"))) == b"ok"
        assert provider.connections == 1


@pytest.mark.parametrize(("kind", "surplus"), [("lean", b"X"), ("lean", OK), ("aiohttp", OK)])
async def test_connection_when_it_says_more_than_the_answer_is_not_reused(kind, surplus):
    async with peer(answering(OK + surplus)) as provider, client_for(provider.url, kind) as client:
        for _ in range(3):
            assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"
            await asyncio.sleep(0.01)
        assert provider.connections == 3


@pytest.mark.parametrize("how", ["close", "reset", "talk"])
async def test_connection_when_it_ends_or_talks_while_idle_is_never_picked(kind, how):
    idle, acted = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await idle.wait()
        idle.clear()
        if how == "close":
            await talk.hang_up()
        elif how == "reset":
            talk.reset()
        else:
            await talk.say(OK)
        acted.set()
        await talk.gone()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        for _ in range(3):
            assert await body_of(await client.send(post(provider.url + "/", b"{}"))) == b"ok"
            idle.set()
            await acted.wait()
            acted.clear()
            for _ in range(5):  # on loopback it has arrived; the event loop notices in one of its next turns
                await asyncio.sleep(0.005)
        assert provider.connections == 3


@pytest.mark.parametrize(
    "asked",
    [
        lambda url: post(url, b"{}"),
        lambda url: post(url, None),
        lambda url: get(url, method="DELETE"),
        lambda url: get(url, body=b"{}"),
    ],
    ids=["POST", "empty POST", "DELETE", "GET with a body"],
)
async def test_connection_when_closed_under_a_request_fails_as_sent_and_is_not_retried(kind, asked):
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.head()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"
        with pytest.raises(UpstreamFailed) as caught:
            await client.send(asked(provider.url + "/"))
        assert (caught.value.code, caught.value.sent) == ("upstream_closed", True)
        assert provider.connections == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_request_that_only_reads_when_its_pooled_connection_is_closed_is_sent_once_more(kind, method):
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK if talk.number == 1 or method != "HEAD" else OK.removesuffix(b"ok"))
        await talk.head()

    sent = []
    async with peer(script) as provider, client_for(provider.url, kind) as client:
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"
        reply = await client.send(get(provider.url + "/", method=method, on_sent=lambda: sent.append(1)))
        assert (reply.status, await body_of(reply)) == (200, b"" if method == "HEAD" else b"ok")
        assert (provider.connections, len(sent)) == (2, 2)


async def test_request_that_only_reads_when_closed_again_is_not_sent_a_third_time(kind):
    async def script(talk: Talk) -> None:
        if talk.number == 1:
            await talk.request()
            await talk.say(OK)
        await talk.head()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"
        with pytest.raises(UpstreamFailed):
            await client.send(get(provider.url + "/"))
        assert provider.connections == 2
        with pytest.raises(UpstreamFailed):
            await client.send(get(provider.url + "/"))
        assert provider.connections == 3, "a new connection that is closed says nothing about pooled ones"


async def test_reply_when_closed_early_drops_the_connection_at_once(kind):
    gone = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await talk.gone()
        gone.set()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(get(provider.url + "/"))
        assert await reply.read() == b"ab"
        reply.close()
        reply.close()
        await asyncio.wait_for(gone.wait(), 5)
        await until(lambda: client.stats().open == 0)


async def test_redirect_when_answered_is_returned_and_cookies_are_not_kept(kind):
    heard = []
    answer = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
    async with peer(answering(answer, heard)) as provider, client_for(provider.url, kind) as client:
        for _ in range(2):
            reply = await client.send(get(provider.url + "/"))
            assert reply.status == 302
            await body_of(reply)
    assert len(heard) == 2
    assert b"ookie" not in heard[1].head


async def test_environment_when_it_names_a_proxy_is_ignored(kind, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with peer(answering(OK)) as provider, client_for(provider.url, kind) as client:
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"


async def test_answer_when_gzipped_is_not_decoded(kind):
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip"
    async with peer(answering(answer)) as provider, client_for(provider.url, kind) as client:
        assert await body_of(await client.send(get(provider.url + "/"))) == b"not gzip"


# ---- early answers


async def test_upload_when_refused_early_returns_the_answer_and_drops_the_connection(kind):
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    stopped = asyncio.Event()

    async def endless():
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            stopped.set()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(answer)
        await talk.gone()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(post(provider.url + "/", endless()))
        assert reply.status == 413
        assert await body_of(reply) == b"no"
        await asyncio.wait_for(stopped.wait(), 5)
        await until(lambda: client.stats().open == 0)


async def test_upload_when_stopped_by_an_early_answer_never_hands_its_connection_on(kind):
    """The unsent rest of the body would be taken from the next request."""
    go_on = asyncio.Event()

    async def stalled():
        yield b"x"
        await asyncio.Event().wait()

    async def script(talk: Talk) -> None:
        await talk.head()
        if talk.number > 1:
            await talk.say(OK)
        else:
            await talk.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nno")
            await go_on.wait()
            await talk.say(b"pe")
        await talk.gone()

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        reply = await client.send(post(provider.url + "/", stalled(), content_length=5000))
        assert (reply.status, await reply.read()) == (400, b"no")
        await asyncio.sleep(0.02)
        go_on.set()
        assert await body_of(reply) == b"pe"
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"
        assert provider.connections == 2


# ---- time


def _silent(talk_first: bytes = b""):
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(talk_first)
        await talk.gone()

    return script


_STARTED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


@pytest.mark.parametrize(
    ("limits", "said", "code"),
    [
        ({"first_byte_s": 0.1}, b"", "upstream_first_byte_timeout"),
        ({"first_byte_s": 0.1}, b"HTTP/1.1 200", "upstream_first_byte_timeout"),
        ({"gap_s": 0.1}, _STARTED, "upstream_gap_timeout"),
        ({"total_s": 0.1}, b"", "upstream_total_timeout"),
        ({"total_s": 0.2}, _STARTED, "upstream_total_timeout"),
    ],
)
async def test_provider_when_silent_times_out_with_the_code_of_the_phase(kind, limits, said, code):
    async with peer(_silent(said)) as provider, client_for(provider.url, kind, **limits) as client:
        with pytest.raises(UpstreamTimeout) as caught:
            await body_of(await client.send(get(provider.url + "/")))
        assert (caught.value.code, caught.value.sent) == (code, True)
        await until(lambda: client.stats().open == 0)


async def test_gap_when_nobody_reads_does_not_count(kind):
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(_STARTED)
        await asyncio.sleep(0.3)
        await talk.say(b"2\r\ncd\r\n0\r\n\r\n")

    async with peer(script) as provider, client_for(provider.url, kind, gap_s=0.15) as client:
        reply = await client.send(get(provider.url + "/"))
        assert await reply.read() == b"ab"
        await asyncio.sleep(0.25)
        assert await body_of(reply) == b"cd"


async def test_first_byte_when_the_upload_is_slow_counts_from_its_end(kind):
    async def slow():
        for _ in range(4):
            yield b"x"
            await asyncio.sleep(0.08)

    async with peer(answering(OK)) as provider, client_for(provider.url, kind, first_byte_s=0.2) as client:
        assert await body_of(await client.send(post(provider.url + "/", slow()))) == b"ok"


async def test_connect_when_tls_never_answers_times_out_unsent(kind):
    async def script(talk: Talk) -> None:
        await talk.gone()

    async with peer(script) as provider:
        url = provider.url.replace("http:", "https:")
        async with client_for(url, kind, connect_s=0.1) as client:
            with pytest.raises(UpstreamTimeout) as caught:
                await client.send(get(url + "/"))
            assert (caught.value.code, caught.value.sent) == ("upstream_connect_timeout", False)
            await until(lambda: client.stats().open == 0)


async def test_connecting_when_this_process_has_no_descriptor_left_then_the_provider_is_not_blamed(monkeypatch, kind):
    async def refused(*_arguments, **_options):
        raise OSError(errno.EMFILE, "Too many open files")

    async with peer(answering(OK)) as provider, client_for(provider.url, kind) as client:
        monkeypatch.setattr("aiohappyeyeballs.start_connection", refused)
        with pytest.raises(Overloaded) as caught:
            await client.send(get(provider.url + "/"))
        assert caught.value.code == "out_of_descriptors"
        assert client.stats().open == 0
        monkeypatch.undo()
        assert await body_of(await client.send(get(provider.url + "/"))) == b"ok"


async def test_connecting_when_this_process_stood_still_then_the_provider_is_not_blamed():
    async with peer(answering(OK)) as provider, client_for(provider.url, "lean", connect_s=0.5) as client:
        sending = asyncio.create_task(client.send(get(provider.url + "/")))
        await asyncio.sleep(0)
        time.sleep(1.2)
        reply = await sending
        assert await body_of(reply) == b"ok"
        reply.close()


async def test_name_when_it_does_not_resolve_fails_unsent(kind):
    async with client_for("http://nowhere.invalid", kind) as client:
        with pytest.raises(UpstreamFailed) as caught:
            await client.send(get("http://nowhere.invalid/"))
        assert (caught.value.code, caught.value.sent) == ("upstream_dns_failed", False)
        assert "nowhere" not in caught.value.message


async def test_pool_when_exhausted_serves_in_order_and_times_out(kind):
    release = asyncio.Event()
    order = []
    heard = []

    async def script(talk: Talk) -> None:
        while True:
            heard.append(await talk.request())
            await release.wait()
            await talk.say(OK)

    async with peer(script) as provider, client_for(provider.url, kind, max_connections=1, pool_s=0.3) as client:

        async def one(name):
            order.append((name, await body_of(await client.send(get(provider.url + "/")))))

        first = [asyncio.create_task(one(name)) for name in "abc"]
        await until(lambda: client.stats().waiting == 2)
        release.set()
        await asyncio.gather(*first)
        assert order == [("a", b"ok"), ("b", b"ok"), ("c", b"ok")]
        release.clear()
        busy = asyncio.create_task(one("d"))
        await until(lambda: len(heard) == 4)
        with pytest.raises(NoUpstreamAvailable) as caught:
            await client.send(get(provider.url + "/"))
        assert caught.value.code == "upstream_pool_timeout"
        release.set()
        await busy
        assert client.stats().waiting == 0


# ---- cancellation


async def test_send_when_cancelled_after_any_delay_leaks_nothing(kind):
    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            await asyncio.sleep(0.002)
            await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await asyncio.sleep(0.002)
            await talk.say(b"cd")

    async with peer(script) as provider, client_for(provider.url, kind, max_connections=2) as client:
        before = len(asyncio.all_tasks())

        async def one():
            reply = await client.send(post(provider.url + "/", _pieces(b"x", b"y")))
            try:
                while await reply.read():
                    pass
            finally:
                reply.close()

        for steps in range(60):
            tasks = [asyncio.create_task(one()) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert client.stats().waiting == 0
            assert client.stats().open <= 2
        for _ in range(4):
            await one()
        await client.close()
        assert client.stats().open == 0
        await until(lambda: len(asyncio.all_tasks()) <= before)
        await until(lambda: not provider.open)


# ---- volume


async def test_download_when_large_and_slowly_read_stays_flat(kind):
    total = 150_000_000

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        block = bytes(1_000_000)
        for _ in range(total // len(block)):
            await talk.say(block)

    async with peer(script) as provider, client_for(provider.url, kind) as client:
        tracemalloc.start()
        try:
            reply = await client.send(get(provider.url + "/"))
            await asyncio.sleep(0.1)  # the provider goes on for as long as we take it
            got = 0
            while piece := await reply.read():
                got += len(piece)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        reply.close()
    assert got == total
    assert peak < 8_000_000


async def test_upload_when_large_and_slowly_taken_stays_flat(kind):
    total = 150_000_000
    held = []

    async def blocks():
        for _ in range(total // 100_000):
            yield bytes(100_000)

    async def script(talk: Talk) -> None:
        await talk.head()
        await asyncio.sleep(0.1)
        left = total
        while left:
            left -= len(await talk.reader.read(1 << 20))
        held.append(left)
        await talk.say(OK)

    tracemalloc.start()
    try:
        async with peer(script) as provider, client_for(provider.url, kind) as client:
            assert await body_of(await client.send(post(provider.url + "/", blocks(), content_length=total))) == b"ok"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held == [0]
    assert peak < 8_000_000
