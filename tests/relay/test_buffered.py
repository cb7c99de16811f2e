import asyncio
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ClientDisconnected, UpstreamFailed
from proxy.exchange import Usage
from proxy.relay import buffered
from proxy.relay.buffered import relay_buffered
from tests.relay.peers import JSON, Client, Reply, announced, answer_to, cuts

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CHOICES = [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]
BODY = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o", "choices": CHOICES, "usage": USAGE}).encode()
LARGE = json.dumps({"model": "gpt-4o", "choices": [], "x": "y" * 3000, "usage": USAGE}).encode()


async def relayed(steps, headers=(JSON,), *, client=None, inspect_bytes=1 << 20, hold_s=5.0, at_once=False):
    client = client or Client()
    answer = answer_to(client, Reply(steps, headers, at_once=at_once))
    await relay_buffered(answer, client, inspect_bytes=inspect_bytes, hold_s=hold_s)
    return client, answer.attempt.meter


@given(st.sets(st.integers(1, len(BODY) - 1), max_size=8), st.booleans(), st.booleans(), st.booleans())
async def test_answer_when_it_comes_anyhow_then_it_leaves_whole_recorded_and_counted_once(
    places, packed, with_length, at_once
):
    body = gzip.compress(BODY, mtime=0) if packed else BODY
    headers = [JSON, *([(b"Content-Encoding", b"gzip")] if packed else []), *([announced(body)] * with_length)]
    client, meter = await relayed(cuts(body, places), headers, at_once=at_once)
    assert client.pieces == [body]
    assert client.journal == ["seal", "head", "byte", "end"]
    assert meter.usage == Usage(input_tokens=7, output_tokens=3)
    assert (meter.response_bytes, meter.output_text_bytes, meter.finish_reasons) == (len(body), 2, ["stop"])
    assert meter.terminated


@given(st.sets(st.integers(1, len(LARGE) - 1), max_size=8), st.booleans())
async def test_answer_when_too_large_to_hold_then_it_passes_and_the_record_precedes_its_end(places, with_length):
    headers = [JSON, *([announced(LARGE)] * with_length)]
    client, meter = await relayed(cuts(LARGE, places), headers, inspect_bytes=500)
    assert client.body == LARGE
    assert meter.usage == Usage(input_tokens=7, output_tokens=3)
    last = len(client.journal) - 1 - client.journal[::-1].index("byte")
    if with_length:
        assert client.length == len(LARGE)
        assert "seal" in client.journal[:last]
    else:
        assert client.journal[last:] == ["byte", "seal", "end"]


async def test_answer_when_its_last_held_byte_makes_it_too_large_then_the_record_still_precedes_it():
    client, _ = await relayed([LARGE[:400], LARGE[400:]], (JSON, announced(LARGE)), inspect_bytes=500)
    assert client.pieces == [LARGE[:400], LARGE[400:]]
    assert client.journal == ["head", "byte", "seal", "byte", "seal", "end"]


async def test_answer_when_empty_then_it_leaves_empty():
    client, meter = await relayed([], (JSON, announced(b"")))
    assert (client.body, client.length, client.journal) == (b"", 0, ["seal", "head", "end"])
    assert meter.usage is None


async def test_answer_when_the_provider_drips_then_it_passes_after_the_hold_time():
    silence = asyncio.Event()
    client = Client()
    work = asyncio.create_task(relayed([b"  ", silence, b'{"usage":', b"null}"], client=client, hold_s=0.02))
    async with asyncio.timeout(5):
        while client.pieces != [b"  "]:
            await asyncio.sleep(0.005)
    assert "seal" not in client.journal
    silence.set()
    await work
    assert client.pieces == [b"  ", b'{"usage":', b"null}"]
    assert client.journal == ["head", "byte", "seal", "end"]


async def test_answer_when_cut_while_held_then_nothing_was_sent_and_an_error_answer_is_possible():
    client = Client()
    with pytest.raises(UpstreamFailed):
        await relayed([BODY[:10], BODY[10:20], UpstreamFailed("cut")], client=client)
    assert client.journal == []


async def test_answer_when_cut_after_the_first_byte_was_sent_then_it_is_not_sealed():
    client = Client()
    with pytest.raises(UpstreamFailed):
        await relayed([LARGE[:600], LARGE[600:700], UpstreamFailed("cut")], client=client, inspect_bytes=500)
    assert client.journal == ["head", "byte"]


async def test_answer_when_the_client_leaves_then_the_error_escapes():
    client = Client(leaves_after=1)
    with pytest.raises(ClientDisconnected):
        await relayed([LARGE], client=client, inspect_bytes=500)
    assert client.journal == ["head", "byte"]


async def test_answer_when_cancelled_while_held_then_nothing_was_sent():
    client = Client()
    work = asyncio.create_task(relayed([b"{", asyncio.Event()], client=client))
    await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert client.journal == []


async def test_answer_when_its_pieces_are_still_joined_then_it_is_not_recorded_as_sent(monkeypatch):
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def slow(pieces):
        begun.set()
        await going_on.wait()
        return b"".join(pieces)

    monkeypatch.setattr(buffered, "joined", slow)
    client = Client()
    work = asyncio.create_task(relayed([BODY[:20], BODY[20:]], client=client))
    await begun.wait()
    assert client.journal == []
    going_on.set()
    await work
    assert client.journal == ["seal", "head", "byte", "end"]
