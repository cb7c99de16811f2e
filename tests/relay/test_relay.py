"""The choice of the relay: by what the answer says it is, not by what was asked for."""

import pytest

from proxy.config.schema import Config
from proxy.errors import PolicyViolation, UpstreamFailed
from proxy.relay.relay import relay
from tests.fakes.scanner import SECRET, FakeScanner
from tests.relay.peers import JSON, STREAM, Allowed, Client, Reply, announced, answer_to

BODY = b'{"object":"chat.completion"}'
DONE = b"data: [DONE]\n\n"
CONFIG = Config()


@pytest.mark.parametrize(
    ("headers", "body", "journal"),
    [
        pytest.param((JSON,), BODY, ["seal", "head", "byte", "end"], id="JSON is held"),
        pytest.param(
            ((b"Content-Type", b"application/problem+json"),), BODY, ["seal", "head", "byte", "end"], id="+json too"
        ),
        pytest.param((STREAM,), DONE, ["head", "seal", "byte", "seal", "end"], id="stream"),
        pytest.param(((b"Content-Type", b"audio/mpeg"),), b"abc", ["head", "byte", "seal", "end"], id="anything else"),
        pytest.param((), b"abc", ["head", "byte", "seal", "end"], id="no type"),
    ],
)
async def test_answer_when_of_a_type_then_its_relay_delivers_it(headers, body, journal):
    client = Client()
    await relay(answer_to(client, Reply([body], headers)), client, CONFIG)
    assert (client.body, client.journal) == (body, journal)


@pytest.mark.parametrize(
    ("headers", "is_cut"), [((STREAM,), True), ((JSON,), False), ((), False)], ids=["stream", "JSON", "anything else"]
)
async def test_answer_when_its_allowance_is_used_up_then_only_a_stream_is_cut(headers, is_cut):
    client = Client()
    said = b'data: {"choices":[{"index":0,"delta":{"content":"ab"}}]}\n\n'
    answer = answer_to(client, Reply([said], headers), allowance=Allowed(1))
    await relay(answer, client, CONFIG)
    assert answer.attempt.meter.cut is is_cut
    assert (client.body == said) is not is_cut


@pytest.mark.parametrize(
    ("status", "is_head", "headers", "length"),
    [
        (204, False, (), None),
        (304, False, ((b"ETag", b"x"),), None),
        (200, True, (JSON, announced(BODY)), len(BODY)),
        (200, True, (STREAM,), None),
        (200, False, (announced(b""),), 0),
        (200, False, (JSON, announced(b"")), 0),
    ],
)
async def test_answer_when_it_has_no_body_then_the_record_precedes_its_head(status, is_head, headers, length):
    client = Client()
    answer = answer_to(client, Reply((), headers, status=status), is_head=is_head)
    await relay(answer, client, CONFIG)
    assert client.journal == ["seal", "head", "end"]
    assert (client.status, client.length, client.headers) == (status, length, headers)
    assert answer.attempt.meter.terminated


async def test_stream_when_empty_then_it_lacks_its_terminator():
    client = Client()
    answer = answer_to(client, Reply((), (STREAM, announced(b""))))
    await relay(answer, client, CONFIG)
    assert client.journal == ["head", "seal", "end"]
    assert not answer.attempt.meter.terminated


@pytest.mark.parametrize("headers", [(), ((b"Content-Type", b"application/octet-stream"),)])
async def test_stream_when_we_asked_for_usage_then_it_is_edited_whatever_its_type(headers):
    chunks = [b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n', DONE]
    client = Client()
    answer = answer_to(client, Reply(chunks, headers), strip_usage=True)
    await relay(answer, client, CONFIG)
    assert client.body == DONE
    assert answer.attempt.meter.usage.output_tokens == 2


async def test_stream_when_it_must_be_bounded_and_nobody_can_read_it_then_it_does_not_begin():
    client = Client()
    headers = (STREAM, (b"Content-Encoding", b"br"))
    with pytest.raises(UpstreamFailed) as caught:
        await relay(answer_to(client, Reply([b"?"], headers), allowance=Allowed(9)), client, CONFIG)
    assert (caught.value.code, client.journal) == ("upstream_bad_encoding", [])
    await relay(answer_to(client, Reply([b"?"], headers), allowance=Allowed(9), dialect="images"), client, CONFIG)
    assert client.body == b"?"


UNREADABLE = {
    "media": ((b"Content-Type", b"audio/mpeg"),),
    "binary": ((b"Content-Type", b"application/octet-stream"),),
    "compressed": (JSON, (b"Content-Encoding", b"br")),
}


@pytest.mark.parametrize("reason", UNREADABLE)
async def test_answer_when_it_cannot_be_scanned_then_the_policy_decides(reason):
    scanner, client = FakeScanner(), Client()
    body = b"\x89PNG" if reason == "binary" else BODY
    await relay(answer_to(client, Reply([body], UNREADABLE[reason]), scanner=scanner), client, CONFIG)
    assert (client.body, scanner.unread) == (body, [("body", reason)])
    scanner, client = FakeScanner(unscannable="deny"), Client()
    answer = answer_to(client, Reply([body], UNREADABLE[reason]), scanner=scanner)
    with pytest.raises(PolicyViolation) as caught:
        await relay(answer, client, CONFIG)
    assert (caught.value.code, caught.value.http_status, client.journal) == ("answer_not_scannable", 502, [])
    assert (scanner.unread, answer.attempt.meter.withheld) == ([("body", reason)], True)


@pytest.mark.parametrize(
    "kind",
    [
        b"application/octet-stream", b"application/pdf", b"text/plain", b"application/x-subrip",
        b"application/jsonl", b"application/atom+xml", b"text/html", b"",
    ],
)  # fmt: skip
async def test_answer_when_it_is_some_kind_of_text_then_it_is_scanned(kind):
    scanner, client = FakeScanner(), Client()
    headers = ((b"Content-Type", kind),) if kind else ()
    await relay(answer_to(client, Reply([SECRET.encode()], headers), scanner=scanner), client, CONFIG)
    assert scanner.seen == [("body", "key")]


async def test_answer_when_it_is_embeddings_then_there_is_nothing_to_scan():
    scanner, client = FakeScanner(), Client()
    await relay(answer_to(client, Reply([BODY], (JSON,)), dialect="embeddings", scanner=scanner), client, CONFIG)
    assert (client.body, scanner.unread, scanner.characters) == (BODY, [], 0)


@pytest.mark.parametrize("scanner", [FakeScanner(edits=False), FakeScanner(edits=False, unscannable="deny")], ids=str)
async def test_stream_when_things_are_only_noted_then_its_bytes_pass(scanner):
    client = Client()
    said = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % SECRET.encode()
    stream = said + b"data: [DONE]\n\n"
    await relay(answer_to(client, Reply([stream[:9], stream[9:]], (STREAM,)), scanner=scanner), client, CONFIG)
    assert (client.body, scanner.seen) == (stream, [("choices[0].content", "key")])
    assert client.pieces[0] == stream[:9] or scanner.unscannable == "deny"
