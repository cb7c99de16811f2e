"""A provider that dies, lies or falls silent: the client sees an error, never a normal end."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.fakes import steps
from tests.fakes.fixtures import Launch
from tests.fakes.judge import assert_error, error_events, eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, RESET, SILENCE, chunk, head, script, sse_head, whole
from tests.fakes.wire import Address, Wire, exchange, post, request

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi there"}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"some text that was paid for"}}]}\n\n'
JSON = b'{"object":"chat.completion","choices":[]}'


@pytest.fixture(scope="module")
def hasty(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    """A proxy with short timeouts."""
    limits = {"FIRST_BYTE_S": "0.8", "GAP_S": "0.6", "TOTAL_S": "2.5", "CONNECT_S": "0.5", "AFTER_END_S": "0.3"}
    settings = {f"SIDEGATE__TIMEOUTS__{name}": value for name, value in limits.items()}
    running = Sidegate(tmp_path_factory.mktemp("hasty"), provider.base_url, session_database_url, settings).start()
    yield running
    running.stop()


BEFORE_THE_HEAD = {
    "closed at once": script(CLOSE),
    "reset at once": script(RESET),
    "closed before reading": script(CLOSE, read_first=False),
    "cut in the status line": script(b"HTTP/1.1 200", CLOSE),
    "cut in the head": script(b"HTTP/1.1 200 OK\r\nContent-Ty", CLOSE),
    "not HTTP": script(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", CLOSE),
    "HTTP/2 frames": script(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", CLOSE),
    "bad status": script(b"HTTP/1.1 abc OK\r\n\r\n", CLOSE),
    "two lengths": script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", CLOSE),
    "length and chunked": script(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", CLOSE
    ),
    "negative length": script(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", CLOSE),
    "CR in a header": script(b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\n{}", CLOSE),
    "NUL in a header": script(b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}", CLOSE),
    "huge header": script(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}", CLOSE),
    "many headers": script(b"HTTP/1.1 200 OK\r\n" + b"X-A: a\r\n" * 3000 + b"Content-Length: 2\r\n\r\n{}", CLOSE),
    "switching protocols": script(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", CLOSE
    ),
    "endless continues": script(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000, CLOSE),
}


@pytest.mark.parametrize("answer", BEFORE_THE_HEAD.values(), ids=BEFORE_THE_HEAD.keys())
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_provider_when_it_breaks_before_the_head_then_502(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes, answer: steps.Script
) -> None:
    provider.on(case, answer)
    reply = await exchange(sidegate.address, post("/v1/chat/completions", body, case=case))
    error = assert_error(reply, 502)
    assert str(error["code"]).startswith("upstream_")
    assert len(provider.seen(case)) == 1, "a request that may have been executed was sent again"


IN_THE_BODY = {
    "length cut": whole(JSON)[:-9],
    "nothing of it": whole(JSON)[: -len(JSON)],
    "chunked cut": head("200 OK", "Transfer-Encoding: chunked") + chunk(JSON[:7]),
    "cut in a chunk": head("200 OK", "Transfer-Encoding: chunked") + chunk(JSON)[:-9],
    "cut before the last chunk": head("200 OK", "Transfer-Encoding: chunked") + chunk(JSON),
    "bad chunk size": head("200 OK", "Transfer-Encoding: chunked") + b"zz\r\n{}\r\n",
    "negative chunk size": head("200 OK", "Transfer-Encoding: chunked") + b"-2\r\n{}\r\n",
}


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", IN_THE_BODY.values(), ids=IN_THE_BODY.keys())
async def test_answer_when_cut_in_the_body_then_the_client_sees_no_normal_end(
    provider: Provider, sidegate: Sidegate, case: str, sent: bytes, end: steps.End
) -> None:
    provider.on(case, script(sent, end))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    if reply.status == 200:
        assert reply.ending in ("cut", "reset")
    else:
        assert_error(reply, 502)
    eventually(lambda: not provider.open or provider.seen(case)[0].closed_at)


CUT_STREAMS = {
    "between events": chunk(EVENT),
    "in an event": chunk(EVENT) + chunk(EVENT[:30]),
    "in a chunk": chunk(EVENT) + chunk(EVENT)[:40],
    "in the terminator": chunk(EVENT) + chunk(b"data: [DO"),
    "cleanly, without a terminator": chunk(EVENT) + LAST_CHUNK,
    "bad chunk size": chunk(EVENT) + b"xyz\r\n",
}


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", CUT_STREAMS.values(), ids=CUT_STREAMS.keys())
async def test_stream_when_cut_then_no_done_is_seen_and_what_was_used_is_estimated(
    provider: Provider, sidegate: Sidegate, case: str, sent: bytes, end: steps.End
) -> None:
    provider.on(case, script(sse_head(), sent, end))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", STREAM, case=case))
    assert reply.status == 200
    assert b"[DONE]" not in reply.body
    trace = sidegate.trace(reply.trace_id)
    assert trace["outcome"] in ("truncated", "upstream_failed")
    assert trace["usageSource"] == "estimated"
    assert trace["inputTokens"] > 0
    if reply.body.startswith(EVENT):
        assert trace["outputTokens"] > 0
    clean = sent.endswith(LAST_CHUNK)
    assert clean or reply.ending != "complete" or error_events(reply.body), "the cut looks like a normal end"


async def test_stream_when_delimited_by_close_and_cut_then_it_is_recorded_as_truncated(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(head("200 OK", content_type="text/event-stream"), EVENT, CLOSE))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", STREAM, case=case))
    assert b"[DONE]" not in reply.body
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["usageSource"]) == ("truncated", "estimated")


async def test_provider_when_silent_before_the_head_then_504(provider: Provider, hasty: Sidegate, case: str) -> None:
    provider.on(case, script(SILENCE))
    reply = await exchange(hasty.address, post("/v1/chat/completions", STREAM, case=case))
    assert_error(reply, 504, "upstream_first_byte_timeout")
    assert hasty.trace(reply.trace_id)["outcome"] == "timeout"
    eventually(lambda: provider.seen(case)[0].closed_at, 1)


async def test_provider_when_silent_inside_a_plain_answer_then_it_ends_in_an_error(
    provider: Provider, hasty: Sidegate, case: str
) -> None:
    provider.on(case, script(whole(JSON)[:-3], SILENCE))
    reply = await exchange(hasty.address, post("/v1/chat/completions", CHAT, case=case))
    if reply.status == 200:
        assert reply.ending in ("cut", "reset")
    else:
        assert_error(reply, 504, "upstream_gap_timeout")
    eventually(lambda: provider.seen(case)[0].closed_at, 1)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", STREAM), ("/v1/responses", STREAM)], ids=["chat", "responses"]
)
async def test_provider_when_silent_inside_a_stream_then_an_error_event_says_so(
    provider: Provider, hasty: Sidegate, case: str, path: str, body: bytes
) -> None:
    provider.on(case, script(sse_head(), chunk(EVENT), SILENCE))
    reply = await exchange(hasty.address, post(path, body, case=case))
    assert reply.body.startswith(EVENT)
    (error,) = error_events(reply.body)
    assert error["code"] == "upstream_gap_timeout"
    assert b"[DONE]" not in reply.body
    assert hasty.trace(reply.trace_id)["outcome"] == "timeout"
    eventually(lambda: provider.seen(case)[0].closed_at, 1)


async def test_stream_when_it_never_ends_then_the_total_time_ends_it(
    provider: Provider, hasty: Sidegate, case: str
) -> None:
    drip = [step for _ in range(40) for step in (chunk(b": ping\n\n"), 0.2)]
    provider.on(case, script(sse_head(), *drip))
    reply = await exchange(hasty.address, post("/v1/chat/completions", STREAM, case=case))
    (error,) = error_events(reply.body)
    assert error["code"] == "upstream_total_timeout"
    eventually(lambda: provider.seen(case)[0].closed_at, 1)


async def test_stream_when_events_come_within_the_gap_then_it_lives_on(
    provider: Provider, hasty: Sidegate, case: str
) -> None:
    drip = [step for _ in range(4) for step in (chunk(EVENT), 0.4)]
    provider.on(case, script(sse_head(), *drip, chunk(b"data: [DONE]\n\n"), LAST_CHUNK))
    reply = await exchange(hasty.address, post("/v1/chat/completions", STREAM, case=case))
    assert reply.body.endswith(b"data: [DONE]\n\n")


async def test_provider_when_nobody_listens_then_502(launch: Launch, closed_port: int, case: str) -> None:
    proxy = launch(upstream=f"http://127.0.0.1:{closed_port}/v1")
    reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case))
    assert_error(reply, 502, "upstream_connect_failed")
    trace = proxy.trace(reply.trace_id)
    assert trace["outcome"] == "upstream_failed"
    assert trace["totalCost"] == 0


async def test_provider_when_connecting_hangs_then_504(launch: Launch, black_hole: Address, case: str) -> None:
    proxy = launch(upstream=f"http://127.0.0.1:{black_hole[1]}/v1", SIDEGATE__TIMEOUTS__CONNECT_S="0.5")
    reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, case=case))
    assert_error(reply, 504, "upstream_connect_timeout")


async def test_upload_when_refused_early_then_the_providers_answer_arrives(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    refusal = whole(b'{"error":{"message":"too large"}}', "Connection: close", status="413 Payload Too Large")
    provider.on(case, script(refusal, 0.3, CLOSE, read_first=False))
    body = b"x" * 3_000_000
    async with asyncio.timeout(10):
        data = post("/v1/files", body, case=case).replace(b"application/json", b"application/octet-stream")
        reply = await exchange(sidegate.address, data)
    assert (reply.status, reply.body) == (413, b'{"error":{"message":"too large"}}')


@pytest.mark.parametrize("kind", ["announced", "chunked"])
@pytest.mark.parametrize("status", ["401 Unauthorized", "200 OK"])
async def test_upload_when_answered_early_then_a_client_that_reads_last_gets_the_answer_too(
    provider: Provider, sidegate: Sidegate, case: str, kind: str, status: str
) -> None:
    """The task that passes the body on is waiting for more of it when the answer comes, and has to let go of it."""
    provider.on(case, script(0.1, whole(b'{"id":"early"}', status=status), 5.0, CLOSE, read_first=False))
    piece, times = b"x" * 65_536, 200
    framing = f"Content-Length: {len(piece) * times}" if kind == "announced" else "Transfer-Encoding: chunked"
    framed = piece if kind == "announced" else chunk(piece)
    async with asyncio.timeout(20), await Wire.open(sidegate.address) as wire:
        await wire.send(request("POST", "/v1/files", "Content-Type: application/octet-stream", framing, case=case))
        await wire.send(framed)
        await asyncio.sleep(0.3)
        for _ in range(times - 1):
            await wire.send(framed)
        if kind == "chunked":
            await wire.send(LAST_CHUNK)
        reply = await wire.reply()
    assert (reply.status, reply.body) == (int(status[:3]), b'{"id":"early"}')
    assert "connection failed" not in sidegate.log()
