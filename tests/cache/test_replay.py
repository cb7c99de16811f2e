"""A kept answer in the place of a provider's."""

from proxy.cache.memory import Kept
from proxy.cache.replay import replay

WHOLE = Kept("whole", b"application/json", b'{"object":"chat.completion","choices":[]}', True, 0.0)
EVENTS = Kept("events", b"text/event-stream", b"data: [DONE]\n\n", True, 0.0)


async def test_replay_when_the_form_is_the_same_then_the_bytes_are():
    reply = replay(WHOLE, stream=False)
    assert reply is not None and reply.complete
    assert (reply.status, reply.headers) == (200, ((b"content-type", b"application/json"),))
    assert [await reply.read(), await reply.read()] == [WHOLE.body, b""]
    reply.close()
    events = replay(EVENTS, stream=True)
    assert events is not None and await events.read() == EVENTS.body


async def test_replay_when_a_stream_is_made_of_a_whole_then_it_is_one():
    reply = replay(WHOLE, stream=True)
    assert reply is not None
    assert reply.headers == ((b"content-type", b"text/event-stream; charset=utf-8"),)
    assert await reply.read() == b"data: [DONE]\n\n"


def test_replay_when_the_form_cannot_be_had_then_nothing():
    assert replay(EVENTS, stream=False) is None
    for body in (b"[]", b'{"object":"response"}'):
        assert replay(Kept("whole", b"application/json", body, True, 0.0), stream=True) is None
