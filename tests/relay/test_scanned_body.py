import asyncio
import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Config
from proxy.errors import PolicyViolation, UpstreamFailed
from proxy.exchange import Capture, Usage
from proxy.relay.relay import relay
from tests.fakes.scanner import MASK, SECRET, FakeScanner
from tests.relay.peers import JSON, Client, Reply, announced, answer_to, cuts

TEXT = (b"Content-Type", b"text/plain; charset=utf-8")
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
CONFIG = Config.model_validate({"limits": {"event_bytes": 4096}, "timeouts": {"answer_hold_s": 0.2}})


def answer_of(content, **message) -> bytes:
    message = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": message, "logprobs": {"content": [{"token": content}]}, "finish_reason": "stop"}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": USAGE}, indent=1).encode()


CLEAN = answer_of("hä")
LEAKY = answer_of(f"a {SECRET} b", tool_calls=[{"id": SECRET, "function": {"arguments": f'{{"k":"{SECRET}"}}'}}])


async def relayed(steps, headers=(JSON,), scanner=None, *, at_once=False, config=CONFIG, client=None, **facts):
    client, scanner = client or Client(), scanner or FakeScanner()
    answer = answer_to(client, Reply(steps, headers, at_once=at_once), scanner=scanner, **facts)
    await relay(answer, client, config)
    return client, answer.attempt.meter


@given(st.sets(st.integers(1, len(CLEAN) - 1), max_size=8), st.sampled_from([b"", b"gzip", b"deflate"]), st.booleans())
async def test_answer_when_it_is_clean_then_it_leaves_whole_and_as_it_came(places, encoding, at_once):
    body = {b"": CLEAN, b"gzip": gzip.compress(CLEAN, mtime=0), b"deflate": zlib.compress(CLEAN)}[encoding]
    headers = [JSON, *([(b"Content-Encoding", encoding)] if encoding else []), announced(body)]
    scanner = FakeScanner()
    client, meter = await relayed(cuts(body, places), headers, scanner, at_once=at_once)
    assert (client.pieces, client.headers, client.length) == ([body], tuple(headers), len(body))
    assert client.journal == ["seal", "head", "byte", "end"]
    assert (meter.usage, meter.terminated) == (Usage(input_tokens=7, output_tokens=3), True)
    assert (meter.response_bytes, meter.output_text_bytes) == (len(body), 3)
    assert (scanner.characters, scanner.seen, scanner.unread) == (2, [], [])


@pytest.mark.parametrize("encoding", [b"", b"gzip"])
async def test_answer_when_it_holds_secrets_then_they_alone_are_masked(encoding):
    body = gzip.compress(LEAKY) if encoding else LEAKY
    headers = (JSON, (b"ETag", b"x"), (b"X-A", b"1"), *([(b"Content-Encoding", encoding)] if encoding else []))
    scanner, capture = FakeScanner(), Capture(10_000)
    client, meter = await relayed([body], headers, scanner, capture=capture)
    expected = json.loads(LEAKY.replace(SECRET.encode(), MASK.encode()))
    expected["choices"][0]["logprobs"] = None
    expected["choices"][0]["message"]["tool_calls"][0]["id"] = SECRET  # an id is no text
    assert json.loads(client.body) == expected
    assert client.body.startswith(LEAKY[: LEAKY.index(b"KEY")])
    assert client.headers == (JSON, (b"X-A", b"1"))
    assert client.kept == client.body
    assert scanner.seen == [
        ("choices[0].message.content", "key"),
        ("choices[0].message.tool_calls[0].function.arguments", "key"),
    ]
    assert meter.usage == Usage(input_tokens=7, output_tokens=3)


async def test_answer_when_it_is_forbidden_then_nothing_of_it_leaves():
    client, scanner = Client(), FakeScanner()
    answer = answer_to(client, Reply([answer_of("BOOM")], (JSON,)), scanner=scanner)
    with pytest.raises(PolicyViolation) as caught:
        await relay(answer, client, CONFIG)
    assert (caught.value.http_status, caught.value.param) == (400, "choices[0].message.content")
    assert client.journal == []
    meter = answer.attempt.meter
    assert (meter.withheld, meter.usage) == (True, Usage(input_tokens=7, output_tokens=3))
    assert scanner.seen == [("choices[0].message.content", "boom")]


async def test_answer_when_things_are_only_noted_then_it_leaves_as_it_came():
    scanner = FakeScanner(edits=False)
    client, _ = await relayed([LEAKY], scanner=scanner)
    assert client.body == LEAKY
    assert len(scanner.seen) == 2


async def test_answer_when_it_is_no_json_then_it_is_scanned_as_text():
    for body in (f"not json {SECRET}\xff".encode("latin-1"), f'"{SECRET}"'.encode()):
        client, _ = await relayed([body])
        assert client.body == body.replace(SECRET.encode(), MASK.encode())


async def test_text_when_it_is_small_then_it_leaves_whole():
    scanner = FakeScanner()
    body = f"1\n00:00 --> 00:01\n{SECRET}\n".encode()
    client, _ = await relayed(cuts(body, [30]), (TEXT, announced(body)), scanner)
    assert (client.body, client.length) == (body.replace(SECRET.encode(), MASK.encode()), len(body) - 4)
    assert scanner.seen == [("body", "key")]


async def test_answer_when_the_provider_drips_blanks_then_they_pass_and_the_rest_is_scanned():
    go_on, again = asyncio.Event(), asyncio.Event()
    client, capture = Client(), Capture(10_000)
    answer = answer_to(
        client,
        Reply([b" \n", go_on, b" ", again, LEAKY[:50], LEAKY[50:]], (JSON,)),
        scanner=FakeScanner(),
        capture=capture,
    )
    task = asyncio.create_task(relay(answer, client, CONFIG))
    while client.body != b" \n":
        await asyncio.sleep(0.01)
    go_on.set()
    while client.body != b" \n ":
        await asyncio.sleep(0.01)
    again.set()
    await task
    assert client.length is None
    assert SECRET not in json.loads(client.body)["choices"][0]["message"]["content"]
    assert client.journal == ["head", "byte", "seal", "byte", "end"]
    assert client.kept == client.body


async def test_answer_when_the_provider_pauses_within_it_then_nothing_leaves():
    go_on = asyncio.Event()
    client = Client()
    answer = answer_to(client, Reply([LEAKY[:50], go_on, LEAKY[50:]], (JSON,)), scanner=FakeScanner())
    task = asyncio.create_task(relay(answer, client, CONFIG))
    await asyncio.sleep(0.3)
    assert client.journal == []
    go_on.set()
    await task
    assert SECRET.encode() not in client.body.replace(f'"id": "{SECRET}"'.encode(), b"")


LARGE = answer_of("x" * 5000)
BOMB = gzip.compress(LARGE)
UNREADABLE = {
    "too large": ([LARGE[:4500], LARGE[4500:]], (), "too_large"),
    "no gzip": ([CLEAN], ((b"Content-Encoding", b"gzip"),), "malformed"),
    "gzip that is cut": ([BOMB[:-4]], ((b"Content-Encoding", b"gzip"),), "malformed"),
    "gzip that hides much": ([BOMB], ((b"Content-Encoding", b"gzip"),), "malformed"),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_answer_when_it_cannot_be_read_then_the_policy_decides(case):
    steps, headers, reason = UNREADABLE[case]
    scanner, capture = FakeScanner(), Capture(1 << 20)
    client, meter = await relayed(steps, (JSON, *headers), scanner, capture=capture)
    assert client.body == client.kept == b"".join(steps)
    assert (scanner.unread, meter.withheld, meter.response_bytes) == ([("body", reason)], False, len(client.body))
    if reason == "malformed":
        assert (client.journal, client.length) == (["seal", "head", "byte", "end"], len(client.body))
    else:
        assert client.journal[-2:] == ["seal", "end"]
        assert meter.usage == Usage(input_tokens=7, output_tokens=3)
    client = Client()
    with pytest.raises(PolicyViolation) as caught:
        await relayed(steps, (JSON, *headers), FakeScanner(unscannable="deny"), client=client)
    assert (caught.value.http_status, client.journal) == (502, [])


async def test_answer_when_it_holds_media_then_the_policy_decides():
    body = json.dumps({"data": [{"b64_json": "QUJD"}, {"b64_json": "QUJD"}]}).encode()
    scanner = FakeScanner()
    client, _ = await relayed([body], scanner=scanner, dialect="images")
    assert (client.body, scanner.unread) == (body, [("data[0].*", "media")])
    with pytest.raises(PolicyViolation):
        await relayed([body], scanner=FakeScanner(unscannable="deny"), dialect="images")


async def test_answer_when_it_is_very_long_then_it_is_scanned_elsewhere():
    config = Config()
    body = answer_of("x" * 300_000 + SECRET)
    client, _ = await relayed([body], config=config)
    assert json.loads(client.body)["choices"][0]["message"]["content"] == "x" * 300_000 + MASK


async def test_answer_when_the_provider_breaks_off_then_nothing_leaves():
    client = Client()
    with pytest.raises(UpstreamFailed):
        await relayed([LEAKY[:50], UpstreamFailed("cut")], client=client)
    assert client.journal == []


async def test_secret_when_it_is_the_name_of_a_member_then_it_is_masked():
    name = f"of-a-user-{SECRET}"
    body = json.dumps(
        {"data": [{"attributes": {name: 1.50, "other": SECRET, "long_name_of_small_letters": 2}}]}
    ).encode()
    scanner = FakeScanner()
    client, _ = await relayed([body], scanner=scanner)
    assert json.loads(client.body) == json.loads(body.replace(SECRET.encode(), MASK.encode()))
    assert scanner.seen == [("data[0].*.*", "key"), ("name", "key")]
    with pytest.raises(PolicyViolation, match="name holds"):
        await relayed([json.dumps({"a": {"x" * 20 + "-BOOM": 1}}).encode()])


@pytest.mark.parametrize("code", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
async def test_answer_when_its_json_is_not_in_plain_utf_8_then_it_is_scanned_and_keeps_its_encoding(code):
    hidden = json.dumps({"choices": [{"message": {"content": SECRET}}]}).replace("KEY", "\\u004bEY")
    client, _ = await relayed([hidden.encode(code)], scanner=FakeScanner(unscannable="deny"))
    assert json.loads(client.body.decode(code)) == {"choices": [{"message": {"content": MASK}}]}
    clean = CLEAN.decode().encode(code)
    client, _ = await relayed([clean], scanner=FakeScanner())
    assert client.body == clean


async def test_answer_when_it_may_be_text_in_an_unknown_encoding_then_the_policy_decides():
    body = LEAKY.decode().encode("utf-16-le") + b"}\0"
    scanner = FakeScanner()
    client, _ = await relayed([body], scanner=scanner)
    assert (client.body, scanner.unread) == (body, [("body", "malformed")])
    with pytest.raises(PolicyViolation) as caught:
        await relayed([body], scanner=FakeScanner(unscannable="deny"))
    assert caught.value.code == "answer_not_scannable"


async def test_answer_when_its_bytes_are_in_no_encoding_then_they_are_scanned_as_text_and_named():
    body = b"\xff\xfe" + LEAKY + b"\xff"
    scanner = FakeScanner()
    client, _ = await relayed([body], scanner=scanner)
    assert (client.body, scanner.unread) == (body.replace(SECRET.encode(), MASK.encode()), [("body", "malformed")])


async def test_answer_when_it_holds_numbers_that_are_no_json_then_it_is_scanned_and_they_stay():
    body = b'{"score": [NaN, -Infinity, 1e999], "text": "\\u004bEY-12345678"}'
    scanner = FakeScanner()
    client, _ = await relayed([body], scanner=scanner)
    assert client.body == b'{"score": [NaN, -Infinity, 1e999], "text": "%b"}' % MASK.encode()
    assert (scanner.seen, scanner.unread) == ([("text", "key")], [])
