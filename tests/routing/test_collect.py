"""An answer read whole and passed on: the same bytes for every cut, metered, within every bound."""

import asyncio
import gzip
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.exchange import Attempt, Candidate
from proxy.routing.collect import Bounds, collect
from tests.fakes.cast import Line, chat, response
from tests.relay.peers import JSON, STREAM, Allowed, Reply

TEXT = "Once upon a time"
CUT = UpstreamFailed("cut", sent=True)


def streamed(dialect="chat", **line) -> bytes:
    make = chat if dialect == "chat" else response
    document = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    return b"".join(make(document, Line(TEXT, **line)).pieces)


def whole(dialect="chat") -> bytes:
    make = chat if dialect == "chat" else response
    return b"".join(make({"model": "m"}, Line(TEXT)).pieces)


def bounds(**more) -> Bounds:
    settings = {"answer_bytes": 100_000, "event_bytes": 50_000, "after_end_s": 0.05, "until": time.monotonic() + 5}
    return Bounds(**{**settings, **more})


GZIP = (b"Content-Encoding", b"gzip")


async def collected(steps, *kinds, dialect="chat", hold=lambda _size: True, allowance=None, **more):
    reply = Reply(steps, kinds or (STREAM,))
    attempt = Attempt(0, Candidate("u", "m"), 0.0, sent=True)
    answer = await collect(reply, attempt, dialect, bounds(**more), hold=hold, allowance=allowance)
    return answer, reply


async def passed_on(answer) -> bytes:
    reply, pieces = answer.pass_on(), []
    while piece := await reply.read():
        pieces.append(piece)
    return b"".join(pieces)


def pieces_of(body: bytes, cuts) -> list[bytes]:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[a:b] for a, b in pairwise(places) if a < b]


@given(st.sampled_from(["chat", "responses"]), st.lists(st.integers(0, 2000), max_size=6))
def test_stream_when_cut_anywhere_then_it_says_the_same_and_passes_byte_for_byte(dialect, cuts):
    body = streamed(dialect)

    async def run():
        answer, reply = await collected(pieces_of(body, cuts), dialect=dialect)
        assert (answer.unchecked, answer.weakness, reply.closed) == (None, None, True)
        assert [said.text.replace(" ", "") for said in answer.said] == [TEXT.replace(" ", "")]
        attempt = answer.attempt
        assert (attempt.meter.usage.output_tokens, attempt.meter.response_bytes) == (20, len(body))
        assert answer.reply.complete
        assert await passed_on(answer) == body
        assert attempt.used is attempt.collected

    asyncio.run(run())


@pytest.mark.parametrize("dialect", ["chat", "responses"])
async def test_document_when_whole_then_it_is_read_and_passes(dialect):
    body = whole(dialect)
    answer, reply = await collected([body[:9], body[9:]], JSON, dialect=dialect)
    assert (answer.said[0].text, answer.weakness, reply.closed) == (TEXT, None, True)
    assert answer.attempt.ended is not None
    assert await passed_on(answer) == body


BROKEN = {
    "cut by the provider": ([streamed()[:200], CUT], STREAM),
    "without its terminator": ([streamed()[:200]], STREAM),
    "with an error": ([b'data: {"error":{"code":"x"}}\n\ndata: [DONE]\n\n'], STREAM),
    "no JSON": ([b"{"], JSON),
    "an error": ([b'{"error": {"code": "x"}}'], JSON),
}


@pytest.mark.parametrize(("steps", "kind"), BROKEN.values(), ids=BROKEN)
async def test_answer_when_it_is_broken_then_it_says_so_and_breaks_again_when_passed_on(steps, kind):
    answer, reply = await collected(list(steps), kind)
    assert (answer.weakness, answer.unchecked, reply.closed) == ("broken", None, True)
    if CUT in steps:
        assert not answer.reply.complete
        assert await answer.reply.read() == steps[0]
        with pytest.raises(UpstreamFailed):
            await answer.reply.read()
        assert answer.attempt.error is CUT
    else:
        assert await passed_on(answer) == steps[0]


async def test_answer_when_it_cannot_be_held_then_it_passes_from_its_beginning_as_it_comes():
    body = streamed()
    cuts = pieces_of(body, range(100, 2000, 100))
    cases = {
        "too_large": {"answer_bytes": 250},
        "memory": {"hold": lambda size: size < 0},
        "quota": {"allowance": Allowed(5)},
    }
    for why, limit in cases.items():
        answer, reply = await collected(cuts, **limit)
        assert (answer.unchecked, reply.closed, answer.reply.complete) == (why, False, False)
        assert await passed_on(answer) == body
        answer.reply.close()
        assert reply.closed


async def test_answer_when_it_is_slow_then_nothing_is_lost():
    body, gate = streamed(), asyncio.Event()
    answer, _ = await collected([body[:100], gate, body[100:]], until=time.monotonic() + 0.05)
    assert answer.unchecked == "too_slow"
    gate.set()
    assert await passed_on(answer) == body


@pytest.mark.parametrize("kind", [(b"Content-Type", b"text/plain"), (b"Content-Encoding", b"br")])
async def test_answer_when_nobody_can_read_it_then_it_passes_untouched(kind):
    answer, reply = await collected([b"hi"], kind)
    assert (answer.unchecked, reply.closed, await passed_on(answer)) == ("unreadable", False, b"hi")


async def test_answer_when_its_encoding_names_no_coding_then_it_is_read():
    answer, _ = await collected([whole()], JSON, (b"Content-Encoding", b"none"))
    assert (answer.unchecked, answer.weakness, answer.said[0].text) == (None, None, TEXT)


@pytest.mark.parametrize("kind", [JSON, STREAM], ids=["whole", "stream"])
async def test_answer_when_it_is_compressed_then_it_is_read_and_passes_compressed(kind):
    body = gzip.compress(whole() if kind is JSON else streamed())
    answer, reply = await collected(pieces_of(body, [1, 20, 90]), kind, GZIP)
    assert (answer.unchecked, answer.weakness, answer.said[0].text) == (None, None, TEXT)
    assert (answer.attempt.meter.usage.output_tokens, reply.closed) == (20, True)
    assert await passed_on(answer) == body


@pytest.mark.parametrize("kind", [JSON, STREAM], ids=["whole", "stream"])
async def test_answer_when_it_hides_too_much_then_it_passes_unchecked(kind):
    body = gzip.compress(b'{"x":"' + b"\n" * 50_000_000)
    held = []
    answer, _ = await collected([body], kind, GZIP, hold=lambda size: held.append(size) is None)
    assert answer.unchecked == "too_large"
    assert sum(held) <= len(body) + 200_000
    assert await passed_on(answer) == body


async def test_stream_when_it_stays_open_after_its_end_then_it_is_not_waited_for():
    body = streamed()
    answer, reply = await collected([body, asyncio.Event()])
    assert (answer.unchecked, answer.weakness, reply.closed) == (None, None, True)


async def test_reading_when_cancelled_then_the_reply_is_let_go_and_the_meter_knows_what_came():
    reply = Reply([streamed()[:300], asyncio.Event()], (STREAM,))
    attempt = Attempt(0, Candidate("u", "m"), 0.0, sent=True)
    task = asyncio.create_task(collect(reply, attempt, "chat", bounds(), hold=lambda _size: True))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (reply.closed, attempt.meter.response_bytes) == (True, 300)


def test_used_when_one_reading_got_further_then_it_counts():
    attempt = Attempt(0, Candidate("u", "m"), 0.0)
    assert attempt.used is attempt.meter
    attempt.collected = type(attempt.meter)(response_bytes=10)
    assert attempt.used is attempt.collected
    attempt.meter.response_bytes = 10
    assert attempt.used is attempt.meter
    attempt.meter.response_bytes, attempt.meter.terminated = 5, True
    assert attempt.used is attempt.meter
