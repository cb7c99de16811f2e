"""Answers that were read before: on record before their body leaves, whole or as a stream."""

import pytest

from proxy.cache.memory import Ready
from proxy.cache.replay import KeptReply
from proxy.exchange import Attempt, Capture, Meter
from proxy.nouns.candidates import Candidate
from proxy.relay.answer import Answer
from proxy.relay.collected import relay_collected


class Client:
    """Notes what reaches it, in order."""

    def __init__(self):
        self.got = []

    async def start(self, status, _reason, _headers, length):
        self.got.append(("start", status, length))

    async def write(self, data):
        self.got.append(("write", data))

    async def finish(self):
        self.got.append(("finish",))

    async def send(self, status, _reason, _headers, body):
        self.got.append(("send", status, body))


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"text/event-stream", [("start", 200, None), ("sealed",), ("write", b"abc"), ("finish",)]),
        (b"application/json", [("sealed",), ("send", 200, b"abc")]),
    ],
)
async def test_answer_when_it_was_counted_then_it_is_on_record_before_its_body_leaves(content_type, expected):
    client, capture = Client(), Capture(100)
    answer = Answer(
        KeptReply(Ready(content_type, b"abc", Meter())),
        (),
        Attempt(0, Candidate("a", "m"), 0.0, status=200),
        dialect="chat",
        strip_usage=True,
        is_head=False,
        seal=lambda: client.got.append(("sealed",)),
        capture=capture,
        is_counted=True,
    )
    await relay_collected(answer, client)
    assert client.got == expected
    assert bytes(capture.response) == b"abc" and answer.attempt.first_byte_at is not None
