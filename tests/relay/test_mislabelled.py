import asyncio
import gzip

import pytest

from proxy.config.schema import Config
from proxy.relay.relay import relay
from tests.fakes.scanner import SECRET, FakeScanner
from tests.relay.peers import JSON, Client, Reply, answer_to

BODY = b'{"object":"chat.completion"}'
DONE = b"data: [DONE]\n\n"
CONFIG = Config()
PLAIN = (b"Content-Type", b"text/plain")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b": wait\n\n", b"event: x\n", b"id: 1\n", b"retry: 5\n"])
@pytest.mark.parametrize("at_once", [False, True], ids=["in pieces", "at once"])
@pytest.mark.parametrize("label", [JSON, PLAIN], ids=["JSON", "text"])
async def test_stream_when_it_is_mislabelled_then_it_is_relayed_as_the_stream_it_is(start, at_once, label):
    said = start + b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    client = Client()
    pieces = [*[said[at : at + 1] for at in range(12)], said[12:], USAGE, DONE]
    answer = answer_to(client, Reply(pieces, (label,), at_once=at_once), strip_usage=True)
    await relay(answer, client, CONFIG)
    assert client.body == said + DONE
    assert client.headers == (label,)
    usage = answer.attempt.meter.usage
    assert (usage.input_tokens, usage.output_tokens) == (1, 2)


@pytest.mark.parametrize("coding", [b"none", b"UTF-8", b"identity"])
async def test_stream_when_its_encoding_names_no_coding_then_it_is_scanned_and_without_usage(coding):
    said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
    headers = ((b"Content-Type", b"text/event-stream"), (b"Content-Encoding", coding))
    client = Client()
    reply = Reply([said % b"a", said % SECRET.encode(), USAGE, DONE], headers)
    answer = answer_to(client, reply, strip_usage=True, scanner=FakeScanner())
    await relay(answer, client, CONFIG)
    assert client.body.startswith(said % b"a") and client.body.endswith(DONE)
    assert SECRET.encode() not in client.body and b"usage" not in client.body
    assert client.headers == headers
    usage = answer.attempt.meter.usage
    assert (usage.input_tokens, usage.output_tokens) == (1, 2)


async def test_stream_when_only_a_further_line_names_its_coding_then_it_is_scanned():
    said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % SECRET.encode()
    lines = ((b"Content-Encoding", b"identity"), (b"Content-Encoding", b"gzip"))
    client = Client()
    reply = Reply([gzip.compress(said + DONE)], ((b"Content-Type", b"text/event-stream"), *lines))
    await relay(answer_to(client, reply, scanner=FakeScanner()), client, CONFIG)
    assert client.headers == ((b"Content-Type", b"text/event-stream"),)
    assert SECRET.encode() not in client.body and client.body.endswith(DONE)


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


@pytest.mark.parametrize("label", [JSON, PLAIN], ids=["JSON", "text"])
async def test_stream_when_it_is_mislabelled_then_it_is_scanned(label):
    said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % SECRET.encode()
    client = Client()
    answer = answer_to(client, Reply([said, DONE], (label,)), asked_for_usage=True, scanner=FakeScanner())
    await relay(answer, client, CONFIG)
    assert SECRET.encode() not in client.body
    assert client.body.startswith(b"data: {") and client.body.endswith(DONE)


@pytest.mark.parametrize("at_once", [False, True], ids=["in pieces", "at once"])
async def test_json_when_a_stream_was_requested_then_it_is_held_as_any_json(at_once):
    client = Client()
    answer = answer_to(client, Reply([b" \n", BODY[:5], BODY[5:]], (JSON,), at_once=at_once), strip_usage=True)
    await relay(answer, client, CONFIG)
    assert (client.body, client.journal) == (b" \n" + BODY, ["seal", "head", "byte", "end"])


@pytest.mark.parametrize("options", [{"strip_usage": True}, {"asked_for_usage": True}])
@pytest.mark.parametrize("kind", [b"application/x-ndjson", b"application/octet-stream", b""])
async def test_lines_when_a_stream_was_requested_then_each_passes_as_it_comes(kind, options):
    more = asyncio.Event()
    client = Client()
    answer = answer_to(client, Reply([b'{"a":1}\n', more, b"dat"], ((b"Content-Type", kind),)), **options)
    relaying = asyncio.create_task(relay(answer, client, CONFIG))
    async with asyncio.timeout(5):
        while client.body != b'{"a":1}\n':
            await asyncio.sleep(0)
    more.set()
    await relaying
    assert client.body == b'{"a":1}\ndat'


async def test_answer_when_it_is_shorter_than_a_field_then_it_passes_by_its_label():
    client = Client()
    await relay(answer_to(client, Reply([b"da"], (PLAIN,)), strip_usage=True), client, CONFIG)
    assert client.body == b"da"
