import asyncio

import pytest

from proxy.config.schema import Config
from proxy.relay.relay import relay
from tests.fakes.scanner import SECRET, FakeScanner
from tests.relay.peers import JSON, Client, Reply, answer_to

BODY = b'{"object":"chat.completion"}'
DONE = b"data: [DONE]\n\n"
CONFIG = Config()
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'


@pytest.mark.parametrize("start", [b"", b"\n", b"\xef\xbb\xbf", b": wait\n\n", b"event: x\n", b"id: 1\nretry: 5\n"])
@pytest.mark.parametrize("at_once", [False, True], ids=["in pieces", "at once"])
async def test_stream_when_it_is_labelled_as_json_then_it_is_relayed_as_the_stream_it_is(start, at_once):
    said = start + b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    client = Client()
    answer = answer_to(client, Reply([said, USAGE, DONE], (JSON,), at_once=at_once), strip_usage=True)
    await relay(answer, client, CONFIG)
    assert client.body == said + DONE
    assert client.headers == (JSON,)
    usage = answer.attempt.meter.usage
    assert (usage.input_tokens, usage.output_tokens) == (1, 2)


async def test_stream_when_it_is_labelled_as_json_then_no_event_waits_for_the_next():
    more = asyncio.Event()
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    client = Client()
    answer = answer_to(client, Reply([said, more, DONE], (JSON,)), asked_for_usage=True, scanner=FakeScanner())
    relaying = asyncio.create_task(relay(answer, client, CONFIG))
    async with asyncio.timeout(5):
        while client.body != said:
            await asyncio.sleep(0)
    more.set()
    await relaying
    assert client.body == said + DONE


async def test_stream_when_it_is_labelled_as_json_then_it_is_scanned():
    said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % SECRET.encode()
    client = Client()
    answer = answer_to(client, Reply([said, DONE], (JSON,)), asked_for_usage=True, scanner=FakeScanner())
    await relay(answer, client, CONFIG)
    assert SECRET.encode() not in client.body
    assert client.body.startswith(b"data: {") and client.body.endswith(DONE)


@pytest.mark.parametrize("at_once", [False, True], ids=["in pieces", "at once"])
async def test_json_when_a_stream_was_requested_then_it_is_held_as_any_json(at_once):
    client = Client()
    answer = answer_to(client, Reply([b" \n", BODY[:5], BODY[5:]], (JSON,), at_once=at_once), strip_usage=True)
    await relay(answer, client, CONFIG)
    assert (client.body, client.journal) == (b" \n" + BODY, ["seal", "head", "byte", "end"])
