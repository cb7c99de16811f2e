import pytest

from proxy.errors import QuotaExceeded
from proxy.exchange import Capture, Meter
from proxy.relay.answer import reason_of
from tests.relay.peers import STREAM, Allowed, Client, Reply, answer_to


@pytest.mark.parametrize(
    ("headers", "length", "encoding", "media_type"),
    [
        ((), None, b"", b""),
        (((b"content-length", b"12"),), 12, b"", b""),
        (((b"Content-Length", b"0"),), 0, b"", b""),
        (((b"Content-Length", b"-1"),), None, b"", b""),
        (((b"Content-Encoding", b" GZIP "),), None, b"gzip", b""),
        (((b"Content-Encoding", b"identity"),), None, b"", b""),
        (((b"CONTENT-TYPE", b" Application/JSON ; charset=utf-8"),), None, b"", b"application/json"),
    ],
)
def test_answer_when_headers_are_spelled_freely_then_their_meaning_is_read(headers, length, encoding, media_type):
    answer = answer_to(Client(), Reply((), headers))
    assert (answer.length, answer.content_encoding, answer.content_type) == (length, encoding, media_type)


@pytest.mark.parametrize(
    ("status", "is_head", "has_body"),
    [(200, False, True), (200, True, False), (204, False, False), (304, False, False), (404, False, True)],
)
def test_answer_when_it_cannot_have_a_body_then_it_says_so(status, is_head, has_body):
    assert answer_to(Client(), Reply((), status=status), is_head=is_head).has_body is has_body


def test_error_event_when_between_two_events_of_a_stream_then_possible():
    answer = answer_to(Client(), Reply((), (STREAM,)))
    assert answer.can_end_with_error


@pytest.mark.parametrize("obstacle", ["no stream", "mid event", "terminated", "cut"])
def test_error_event_when_nothing_well_formed_can_follow_then_not_possible(obstacle):
    answer = answer_to(Client(), Reply((), () if obstacle == "no stream" else (STREAM,)))
    answer.mid_event = obstacle == "mid event"
    answer.attempt.meter.terminated = obstacle == "terminated"
    answer.attempt.meter.cut = obstacle == "cut"
    assert not answer.can_end_with_error


async def test_reason_when_an_allowance_says_no_then_its_own_or_at_least_one_of_the_same_kind():
    allowance = Allowed(0)
    assert isinstance(reason_of(allowance), QuotaExceeded)
    await allowance.extend(Meter(output_text_bytes=1))
    assert reason_of(allowance) is allowance.error


def test_count_when_pieces_pass_then_size_first_byte_and_capture_are_noted():
    capture = Capture(limit_bytes=5)
    answer = answer_to(Client(), Reply(()), capture=capture)
    answer.count(b"abc")
    first = answer.attempt.first_byte_at
    answer.count(b"defg")
    assert first is not None
    assert answer.attempt.first_byte_at == first
    assert answer.attempt.meter.response_bytes == 7
    assert (bytes(capture.response), capture.truncated) == (b"abcde", True)
