"""Event streams: the same bytes however the network cuts them, each event as soon as it is there."""

import asyncio
import gzip
import json

import pytest

from tests.fakes import steps
from tests.fakes.judge import assert_same
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, LAST_CHUNK, chunk, chunks, script, sse_head
from tests.fakes.wire import Reply, Wire, exchange, exchange_both, post

PLAIN = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"hi"}]}'
ASKED = PLAIN[:-1] + b',"stream_options":{"include_usage":true}}'

BASE = b'"id":"c","object":"chat.completion.chunk","model":"gpt-4o-mini","choices":'
FIRST = b'{"index":0,"delta":{"role":"assistant","content":"na\xc3\xafve \xf0\x9f\x91\x8b","x":{"usage":null}}}'
HEAD_END = b"\r\n\r\n"
USAGE = b'{"prompt_tokens":17,"completion_tokens":5,"total_tokens":22}'


def events(end: bytes, *, usage: bool) -> list[bytes]:
    """A stream that uses what the format allows: comments, several data lines, other fields, an unknown event."""
    null = b',"usage":null' if usage else b""
    return [
        b": ping" + end + end,
        b"data: {" + BASE + b"[" + FIRST + b"]" + null + b"}" + end + end,
        b"data:{" + BASE + end + b'data:[{"index":0,"delta":{"content":"two lines"}}]' + null + b"}" + end + end,
        b"event: odd" + end + b"id: 7" + end + b"retry: 10" + end + b"data: not json" + end + end,
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]' + null + b"}" + end + end,
        *([b'data: {"choices":[],"usage":' + USAGE + b"}" + end + end] if usage else []),
        b"data: [DONE]" + end + end,
    ]


def single_line_events(end: bytes, *, usage: bool) -> list[bytes]:
    return [event for event in events(end, usage=usage) if event.count(b"data:") < 2]


def answer(pieces: list[bytes]) -> bytes:
    return sse_head("x-request-id: req_s") + chunks(pieces) + LAST_CHUNK


async def torn(
    provider: Provider, sidegate: Sidegate, case: str, data: bytes, wire: bytes, expected: bytes, first: int, step: int
) -> None:
    """Send `wire` once for each `step`th cut after the head, a pause in between, and demand the same body each time.

    The relay's own tests cut at every byte; here it is about the way through the network, so the kinds of line ends
    share the places.
    """
    start = wire.index(HEAD_END) + 4
    slots = asyncio.Semaphore(24)

    async def one(at: int) -> None:
        name = f"{case}-{at}"
        provider.on(name, script(wire[:at], 0.004, wire[at:]))
        async with slots:
            reply = await exchange(sidegate.address, data.replace(case.encode(), name.encode()))
        assert (reply.ending, reply.body) == ("complete", expected), f"torn at {at}"

    await asyncio.gather(*(one(at) for at in range(start + first, len(wire), step)))


@pytest.mark.parametrize(("first", "end"), list(enumerate([b"\n", b"\r\n", b"\r"])), ids=["LF", "CRLF", "CR"])
async def test_stream_when_usage_asked_and_torn_anywhere_then_bytes_are_the_providers(
    provider: Provider, sidegate: Sidegate, case: str, first: int, end: bytes
) -> None:
    pieces = events(end, usage=True)
    data = post("/v1/chat/completions", ASKED, case=case)
    await torn(provider, sidegate, case, data, answer(pieces), b"".join(pieces), first, 3)


@pytest.mark.parametrize(("first", "end"), list(enumerate([b"\n", b"\r\n"])), ids=["LF", "CRLF"])
async def test_stream_when_usage_not_asked_and_torn_anywhere_then_no_trace_of_usage_is_left(
    provider: Provider, sidegate: Sidegate, case: str, first: int, end: bytes
) -> None:
    wire = answer(single_line_events(end, usage=True))
    data = post("/v1/chat/completions", PLAIN, case=case)
    expected = b"".join(single_line_events(end, usage=False))
    await torn(provider, sidegate, case, data, wire, expected, first, 2)
    seen = json.loads(provider.seen(f"{case}-{wire.index(HEAD_END) + 4 + first}")[0].body)
    assert seen == json.loads(ASKED)


async def test_stream_when_usage_not_asked_then_its_usage_is_recorded_all_the_same(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(answer(single_line_events(b"\n", usage=True))))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", PLAIN, case=case))
    trace = sidegate.trace(reply.trace_id)
    assert (trace["inputTokens"], trace["outputTokens"], trace["usageSource"]) == (17, 5, "provider")
    assert (trace["outcome"], trace["stream"], trace["status"]) == ("ok", True, 200)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("body", [PLAIN, ASKED], ids=["plain", "asked"])
async def test_stream_when_provider_is_ordinary_then_answer_is_the_same_as_direct(
    provider: Provider, sidegate: Sidegate, case: str, path: str, body: bytes
) -> None:
    direct, through = await exchange_both(provider.address, sidegate.address, post(path, body, case=case))
    assert_same(direct, through)
    tokens = provider.billed(case)[-1]
    trace = sidegate.trace(through.trace_id)
    assert (trace["inputTokens"], trace["outputTokens"]) == (tokens.input_tokens, tokens.output_tokens)


async def test_stream_when_options_hold_more_then_only_usage_is_added(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = PLAIN[:-1] + b', "stream_options": {"include_obfuscation": false}}'
    await exchange(sidegate.address, post("/v1/chat/completions", body, case=case))
    options = json.loads(provider.seen(case)[0].body)["stream_options"]
    assert options == {"include_obfuscation": False, "include_usage": True}


async def check_each_leaves_at_once(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes, pieces: list[bytes]
) -> None:
    """Send each piece only once the one before has come through."""
    gates = [provider.gate() for _ in pieces]
    interleaved = [step for piece, gate in zip(pieces, gates, strict=True) for step in (chunk(piece), gate)]
    provider.on(case, script(sse_head(), *interleaved, LAST_CHUNK))
    async with asyncio.timeout(10), await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", body, case=case))
        await wire.head()
        for piece, gate in zip(pieces, gates, strict=True):
            await wire.until(piece)
            gate.open()
        await wire.until(LAST_CHUNK)


async def test_stream_when_an_event_arrives_then_it_leaves_at_once(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    await check_each_leaves_at_once(provider, sidegate, case, PLAIN, single_line_events(b"\n", usage=False))


async def test_stream_when_answers_are_scanned_then_an_event_leaves_as_soon_as_it_is_complete(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    pieces = [b": ping\n", b"\n", b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"]
    await check_each_leaves_at_once(provider, sidegate, case, ASKED, pieces)


async def test_stream_when_the_head_is_there_then_it_leaves_before_the_first_event(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    gate = provider.gate()
    provider.on(case, script(sse_head(), chunk(b": thinking\n\n"), gate, chunk(b"data: [DONE]\n\n"), LAST_CHUNK))
    async with asyncio.timeout(10), await Wire.open(sidegate.address) as wire:
        await wire.send(post("/v1/chat/completions", PLAIN, case=case))
        reply = await wire.head()
        assert (reply.status, reply.value("content-type")) == (200, "text/event-stream; charset=utf-8")
        await wire.until(b": thinking\n\n")
        gate.open()
        await wire.until(LAST_CHUNK)


@pytest.mark.parametrize("body", [PLAIN, ASKED], ids=["plain", "asked"])
async def test_stream_when_an_event_is_giant_then_it_passes_whole(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes
) -> None:
    giant = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 6_000_000 + b'"}}]}\n\n'
    pieces = [giant, b"data: [DONE]\n\n"]
    provider.on(case, script(answer(pieces)))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", body, case=case))
    assert (reply.ending, reply.body) == ("complete", b"".join(pieces))


async def test_stream_when_many_events_come_in_one_write_then_all_pass(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    pieces = [b'data: {"choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n' % n for n in range(20_000)]
    pieces.append(b"data: [DONE]\n\n")
    provider.on(case, script(sse_head(), chunk(b"".join(pieces)), LAST_CHUNK))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", PLAIN, case=case))
    assert reply.body == b"".join(pieces)


async def test_stream_when_gzip_then_the_content_is_the_same_and_metered(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    packed = gzip.compress(b"".join(single_line_events(b"\n", usage=True)))
    lines = ("Content-Encoding: gzip", "Transfer-Encoding: chunked")
    start = steps.head("200 OK", *lines, content_type="text/event-stream")
    provider.on(case, script(start, chunk(packed[:40]), 0.02, chunk(packed[40:]), LAST_CHUNK))
    data = post("/v1/chat/completions", PLAIN, "Accept-Encoding: gzip", case=case)
    reply = await exchange(sidegate.address, data)
    content = gzip.decompress(reply.body) if reply.value("content-encoding") == "gzip" else reply.body
    assert content == b"".join(single_line_events(b"\n", usage=False))
    assert sidegate.trace(reply.trace_id)["inputTokens"] == 17


async def test_stream_when_delimited_by_close_and_terminated_then_it_is_complete(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    pieces = single_line_events(b"\n", usage=False)
    provider.on(case, script(steps.head("200 OK", content_type="text/event-stream"), b"".join(pieces), CLOSE))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", ASKED, case=case))
    assert (reply.ending, reply.body) == ("complete", b"".join(pieces))
    assert sidegate.trace(reply.trace_id)["outcome"] == "ok"


async def test_stream_when_the_provider_stays_open_after_its_end_then_the_client_does_not_wait(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(sse_head(), chunk(b"data: [DONE]\n\n"), steps.SILENCE))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", ASKED, case=case), timeout_s=9)
    assert (reply.ending, reply.body) == ("complete", b"data: [DONE]\n\n")


async def test_stream_when_the_client_keeps_its_connection_then_the_next_request_works(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    async with asyncio.timeout(10), await Wire.open(sidegate.address) as wire:
        replies: list[Reply] = []
        for body in (PLAIN, ASKED, PLAIN):
            await wire.send(post("/v1/chat/completions", body, case=case))
            replies.append(await wire.reply())
    assert [reply.ending for reply in replies] == ["complete"] * 3
    assert replies[0].body == replies[2].body != replies[1].body
    assert len({seen.connection for seen in provider.seen(case)}) == 1
