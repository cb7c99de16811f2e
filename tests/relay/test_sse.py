import asyncio
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ClientDisconnected, UpstreamFailed, UpstreamTimeout
from proxy.exchange import Capture, Usage
from proxy.relay.sse import relay_events
from tests.relay.peers import STREAM, Client, Reply, announced, answer_to, cuts


def chunk(content: str, *, usage: str = "") -> bytes:
    return b'data: {"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"%b"}}]%b}\n\n' % (
        content.encode(),
        usage.encode(),
    )


DONE = b"data: [DONE]\n\n"
USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
PING = b": ping\r\n\r\n"
NULL = ',"usage":null'
ASKED = PING + chunk("hä", usage=NULL) + chunk("llo", usage=NULL) + USAGE_EVENT + DONE
STRIPPED = PING + chunk("hä") + chunk("llo") + DONE


async def relayed(steps, headers=(STREAM,), *, client=None, after_end_s=5.0, event_bytes=1 << 20, **facts):
    client = client or Client()
    answer = answer_to(client, Reply(steps, headers), **facts)
    await relay_events(answer, client, event_bytes=event_bytes, after_end_s=after_end_s)
    return client, answer


@pytest.mark.parametrize("strip", [False, True], ids=["passing", "editing"])
async def test_stream_when_torn_at_any_byte_then_output_and_meter_are_the_same(strip):
    expected = STRIPPED if strip else ASKED
    for at in range(len(ASKED)):
        client, answer = await relayed(cuts(ASKED, [at]), strip_usage=strip)
        assert client.body == expected, at
        meter = answer.attempt.meter
        assert meter.usage == Usage(input_tokens=7, output_tokens=3), at
        assert (meter.output_text_bytes, meter.response_bytes, meter.terminated) == (6, len(ASKED), True), at


@given(st.sets(st.integers(1, len(ASKED) - 1)), st.booleans(), st.sampled_from([b"", b"gzip", b"deflate"]))
async def test_stream_when_cut_and_encoded_anyhow_then_output_is_the_same_and_the_record_precedes_its_end(
    places, strip, encoding
):
    data = {b"": ASKED, b"gzip": gzip.compress(ASKED, mtime=0), b"deflate": zlib.compress(ASKED)}[encoding]
    headers = (STREAM, (b"Content-Encoding", encoding)) if encoding else (STREAM,)
    client, answer = await relayed(cuts(data, places), headers, strip_usage=strip)
    if strip:
        assert (client.body, client.headers) == (STRIPPED, (STREAM,))
    else:
        assert (client.body, client.headers) == (data, headers)
    assert answer.attempt.meter.usage == Usage(input_tokens=7, output_tokens=3)
    assert "seal" in client.journal[: len(client.journal) - 1 - client.journal[::-1].index("byte")]


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=8))
async def test_stream_when_it_is_any_bytes_then_they_pass(pieces):
    client, _ = await relayed(pieces, dialect="generic")
    assert client.pieces == pieces
    assert client.journal[-2:] == ["seal", "end"]


async def test_stream_when_its_terminator_comes_byte_by_byte_then_the_record_precedes_the_byte_that_completes_it():
    client = Client()
    sealed_at = []
    answer = answer_to(client, Reply(cuts(ASKED, range(len(ASKED))), (STREAM,)))
    answer.seal = lambda: sealed_at.append(len(client.body))
    await relay_events(answer, client, event_bytes=1 << 20, after_end_s=1)
    assert sealed_at[0] == len(ASKED) - 1


async def test_stream_when_half_an_event_comes_then_it_leaves_at_once_unless_it_may_have_to_change():
    silence = asyncio.Event()
    for strip, expected in ((False, chunk("hi")[:20]), (True, b"")):
        client = Client()
        work = asyncio.create_task(relayed([chunk("hi")[:20], silence], client=client, strip_usage=strip))
        for _ in range(10):
            await asyncio.sleep(0)
        assert client.body == expected
        work.cancel()
        await asyncio.wait([work])


async def test_stream_when_a_length_was_announced_then_it_is_not_passed_on():
    client, _ = await relayed([ASKED], (STREAM, announced(ASKED)))
    assert (client.length, client.body) == (None, ASKED)


@pytest.mark.parametrize("dialect", ["chat", "responses", "audio"])
async def test_stream_when_it_ends_without_its_terminator_then_it_is_not_complete(dialect):
    client, answer = await relayed([b'data: {"type":"x"}\n\n'], dialect=dialect)
    assert not answer.attempt.meter.terminated
    assert client.journal == ["head", "byte", "seal", "end"]


@pytest.mark.parametrize("dialect", ["generic", "none"])
async def test_stream_when_its_dialect_has_no_terminator_then_the_end_is_the_end(dialect):
    _, answer = await relayed([b'data: {"type":"x"}\n\n'], dialect=dialect)
    assert answer.attempt.meter.terminated


async def test_stream_when_the_last_event_lacks_its_empty_line_then_it_is_read_and_passed():
    for strip in (False, True):
        client, answer = await relayed([chunk("hi"), b"data: [DONE]"], strip_usage=strip)
        assert client.body == chunk("hi") + b"data: [DONE]"
        assert answer.attempt.meter.terminated
        assert client.journal[-1] == "end"


async def test_stream_when_the_provider_stays_open_after_the_end_then_it_ends_in_time():
    client, _ = await relayed([ASKED, asyncio.Event()], after_end_s=0.02)
    assert client.body == ASKED
    assert client.journal[-1] == "end"


async def test_stream_when_the_provider_goes_on_after_the_end_then_the_time_counts_as_a_whole():
    ticks = [asyncio.Event() for _ in range(200)]
    steps = [ASKED, *(step for tick in ticks for step in (tick, PING))]

    async def tick_on():
        for tick in ticks:
            await asyncio.sleep(0.01)
            tick.set()

    ticking = asyncio.create_task(tick_on())
    async with asyncio.timeout(1.5):
        client, _ = await relayed(steps, after_end_s=0.1)
    assert not ticking.done()
    assert client.body.startswith(ASKED + PING)
    ticking.cancel()
    await asyncio.wait([ticking])


async def test_stream_when_the_provider_times_out_after_the_end_then_nobody_minds():
    client, _ = await relayed([ASKED, UpstreamTimeout("slow")])
    assert client.journal[-1] == "end"


@pytest.mark.parametrize(
    ("steps", "strip", "can_end_with_error"),
    [
        pytest.param([chunk("hi")], False, True, id="between events"),
        pytest.param([chunk("hi"), b"data: {"], False, False, id="mid event"),
        pytest.param([chunk("hi"), b"data: {"], True, True, id="half a line is held"),
        pytest.param([b'data: {"a":1}\nid: 3\n'], True, False, id="mid event while editing"),
        pytest.param([ASKED], False, False, id="after the terminator"),
        pytest.param([], False, True, id="before the first event"),
    ],
)
async def test_stream_when_cut_then_an_error_event_may_follow_only_between_events(steps, strip, can_end_with_error):
    client = Client()
    answer = answer_to(client, Reply([*steps, UpstreamFailed("cut")], (STREAM,)), strip_usage=strip)
    with pytest.raises(UpstreamFailed):
        await relay_events(answer, client, event_bytes=1 << 20, after_end_s=1)
    assert answer.can_end_with_error is can_end_with_error
    assert "end" not in client.journal


async def test_stream_when_an_event_is_too_large_to_edit_then_the_failure_says_so_and_nothing_of_it_left():
    client = Client()
    answer = answer_to(client, Reply([chunk("hi"), b"data: {" + b"x" * 300], (STREAM,)), strip_usage=True)
    with pytest.raises(UpstreamFailed) as caught:
        await relay_events(answer, client, event_bytes=200, after_end_s=1)
    assert caught.value.code == "upstream_event_too_large"
    assert client.body == chunk("hi")
    assert answer.can_end_with_error


async def test_stream_when_an_event_is_too_large_but_only_passes_then_it_passes():
    large = chunk("x" * 400)
    client, answer = await relayed([large[:250], large[250:], DONE], event_bytes=200)
    assert client.body == large + DONE
    assert answer.attempt.meter.terminated


async def test_stream_when_it_is_not_in_its_encoding_then_it_passes_unless_it_must_be_edited():
    headers = (STREAM, (b"Content-Encoding", b"gzip"))
    client, answer = await relayed([ASKED, DONE], headers)
    assert (client.body, client.headers) == (ASKED + DONE, headers)
    assert not answer.attempt.meter.terminated
    with pytest.raises(UpstreamFailed) as caught:
        await relayed([ASKED], headers, strip_usage=True)
    assert caught.value.code == "upstream_bad_encoding"


async def test_stream_when_compressed_and_cut_then_it_does_not_pass_as_complete():
    packed = gzip.compress(b'data: {"type":"x"}\n\n')
    with pytest.raises(UpstreamFailed) as caught:
        await relayed([packed[:-9]], (STREAM, (b"Content-Encoding", b"gzip")), dialect="generic")
    assert caught.value.code == "upstream_body_cut"


async def test_stream_when_its_coding_cannot_be_undone_then_it_passes_unread():
    headers = (STREAM, (b"Content-Encoding", b"br"))
    client, answer = await relayed([b"data: \n\x0b\x02\x80", b"\n\n[DONE]\x03"], headers, strip_usage=True)
    assert client.pieces == [b"data: \n\x0b\x02\x80", b"\n\n[DONE]\x03"]
    assert client.headers == headers
    assert answer.attempt.meter.terminated


async def test_stream_when_captured_then_what_the_client_got_is_kept():
    capture = Capture(limit_bytes=1000)
    client, answer = await relayed([ASKED], strip_usage=True, capture=capture)
    assert client.kept == client.body == STRIPPED
    assert answer.attempt.first_byte_at is not None


async def test_stream_when_the_client_leaves_then_what_was_generated_so_far_is_metered():
    client = Client(leaves_after=1)
    answer = answer_to(client, Reply([chunk("hello"), chunk("more"), DONE], (STREAM,)))
    with pytest.raises(ClientDisconnected):
        await relay_events(answer, client, event_bytes=1 << 20, after_end_s=1)
    assert answer.attempt.meter.output_text_bytes == 5
    assert "seal" not in client.journal
