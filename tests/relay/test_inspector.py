import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Meter, Usage
from proxy.relay.inspector import BodyInspector
from tests.relay.peers import cuts

CHOICES = [{"index": 0, "message": {"content": "hällo"}, "finish_reason": "stop"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DOCUMENT = {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o-2", "choices": CHOICES, "usage": USAGE}
BODY = json.dumps(DOCUMENT).encode()
LARGE = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o-2", "padding": "x" * 200_000, "usage": USAGE}).encode()


def inspected(pieces, *, encoding=b"", limit=1 << 20, dialect="chat"):
    meter = Meter()
    inspector = BodyInspector(dialect, encoding, limit)
    for piece in pieces:
        inspector.feed(piece)
    inspector.finish(meter)
    return meter


@given(st.sets(st.integers(1, len(BODY) - 1)), st.sampled_from([b"", b"gzip", b"deflate"]))
def test_answer_when_cut_and_encoded_anyhow_then_the_meter_is_the_same(places, encoding):
    data = {b"": BODY, b"gzip": gzip.compress(BODY, mtime=0), b"deflate": zlib.compress(BODY)}[encoding]
    meter = inspected(cuts(data, places), encoding=encoding)
    assert meter == inspected([BODY])
    assert meter.usage == Usage(input_tokens=7, output_tokens=3)
    assert (meter.response_model, meter.finish_reasons, meter.terminated) == ("gpt-4o-2", ["stop"], True)
    assert meter.output_text_bytes == len("hällo".encode())


@given(st.sets(st.integers(1, len(LARGE) - 1), max_size=6))
def test_answer_when_too_large_to_keep_then_its_two_ends_tell_model_and_usage(places):
    meter = inspected(cuts(LARGE, places), limit=1000)
    assert meter.response_model == "gpt-4o-2"
    assert meter.usage == Usage(input_tokens=7, output_tokens=3)


def test_answer_when_it_fills_the_limit_exactly_then_it_is_read_whole():
    assert inspected([BODY], limit=len(BODY)).finish_reasons == ["stop"]
    assert inspected([BODY], limit=len(BODY) - 1).finish_reasons == []


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        pytest.param(BODY, b"gzip", id="not gzip"),
        pytest.param(gzip.compress(BODY)[:40], b"gzip", id="cut"),
        pytest.param(BODY, b"br", id="unknown coding"),
        pytest.param(b"\x00\xff", b"", id="no JSON"),
        pytest.param(b"", b"", id="empty"),
    ],
)
def test_answer_when_it_cannot_be_read_then_it_is_complete_without_usage(data, encoding):
    meter = inspected([data, data], encoding=encoding)
    assert meter.usage is None
    assert meter.terminated


def test_answer_when_it_would_inflate_without_bound_then_it_is_given_up():
    zeros = zlib.compressobj(9, wbits=31)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(200)) + zeros.flush()
    inspector = BodyInspector("chat", b"gzip", 1000)
    inspector.feed(bomb)
    assert inspector._size < 70_000_000
    meter = Meter()
    inspector.finish(meter)
    assert meter.usage is None
