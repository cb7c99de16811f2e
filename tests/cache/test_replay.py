"""A kept answer in the place of a provider's, in the shape that is asked for."""

import orjson

from proxy.cache.memory import Kept
from proxy.cache.replay import KeptReply, made_ready

DOCUMENT = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m-1", "usage": {"prompt_tokens": 3},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}  # fmt: skip
WHOLE = Kept("whole", b"application/json", orjson.dumps(DOCUMENT), True, 0.0)
TEXT = b'data: {"model":"m-1","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]%b}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
EVENTS = Kept("events", b"text/event-stream", TEXT % b',"usage":null' + USAGE + DONE, True, 0.0)


async def test_answer_when_made_ready_then_it_reads_as_its_provider_sent_it():
    ready = made_ready(WHOLE, "whole", "chat")
    assert ready is not None
    reply = KeptReply(ready)
    assert (reply.status, reply.headers, reply.complete) == (200, ((b"content-type", b"application/json"),), True)
    assert [await reply.read(), await reply.read()] == [WHOLE.body, b""]
    reply.close()


def test_answer_when_made_ready_then_what_a_relay_counts_is_known():
    for kept, shape, text in ((WHOLE, "whole", 0), (WHOLE, "events", 5), (EVENTS, "events", 2), (EVENTS, "bare", 2)):
        ready = made_ready(kept, shape, "chat")
        assert ready is not None
        meter = ready.meter
        assert (meter.response_model, meter.finish_reasons, meter.terminated) == ("m-1", ["stop"], True)
        assert (meter.response_bytes, meter.usage is not None) == (len(ready.body), True)
        assert meter.output_text_bytes >= text


def test_stream_when_usage_is_not_asked_for_then_only_that_is_gone():
    told, bare = (made_ready(EVENTS, shape, "chat") for shape in ("events", "bare"))
    assert told is not None and bare is not None
    assert told.body is EVENTS.body
    assert bare.body == TEXT % b"" + DONE


def test_stream_when_made_of_a_whole_then_it_is_one():
    ready = made_ready(WHOLE, "bare", "chat")
    assert ready is not None and ready.content_type == b"text/event-stream; charset=utf-8"
    assert b'"hello"' in ready.body and b'"usage"' not in ready.body and ready.body.endswith(DONE)


def test_answer_when_the_shape_cannot_be_had_then_nothing():
    assert made_ready(EVENTS, "whole", "chat") is None
    for body in (b"[]", b'{"object":"response"}'):
        assert made_ready(Kept("whole", b"application/json", body, True, 0.0), "events", "chat") is None
