import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Config
from proxy.errors import PolicyViolation, UpstreamFailed
from proxy.exchange import Capture
from proxy.relay.relay import relay
from tests.fakes.scanner import MASK, SECRET, FakeScanner
from tests.relay.peers import Client, Reply, announced, answer_to, cuts

TEXT = (b"Content-Type", b"text/vtt")
BODY = b"WEBVTT\n\n" + f"hä \U0001f44b {SECRET} psst KEY-1".encode() + b"\xff\xc3"


async def relayed(steps, scanner=None, headers=(TEXT,), client=None, **facts):
    client, scanner = client or Client(), scanner or FakeScanner()
    answer = answer_to(client, Reply(steps, headers), scanner=scanner, **facts)
    await relay(answer, client, Config())
    return client, answer.attempt.meter


@given(st.sets(st.integers(1, len(BODY) - 1)), st.booleans(), st.booleans())
async def test_text_when_cut_anyhow_then_its_secrets_alone_are_masked(places, packed, edits):
    scanner, capture = FakeScanner(edits=edits), Capture(1000)
    body = gzip.compress(BODY, mtime=0) if packed else BODY
    headers = (TEXT, (b"Content-Encoding", b"gzip")) if packed else (TEXT,)
    client, meter = await relayed(cuts(body, places), scanner, headers, capture=capture)
    assert client.body == (BODY.replace(SECRET.encode(), MASK.encode()) if edits else BODY)
    assert (client.headers, client.length) == ((TEXT,), None)
    assert (meter.terminated, meter.response_bytes) == (True, len(body))
    assert client.kept == client.body
    assert ("body", "key") in scanner.seen
    assert client.journal[-3:] in (["seal", "byte", "end"], ["byte", "seal", "end"])


async def test_text_when_nothing_can_match_then_each_piece_leaves_at_once():
    client, _ = await relayed([b"one ", b"two", b" \xc3", b"\xa4"])
    assert client.pieces == [b"one ", b"two", b" ", b"\xc3\xa4"]


@pytest.mark.parametrize("steps", [[b"a BO", b"OM b"], [b"a BOOM"]])
async def test_text_when_it_is_forbidden_then_nothing_of_that_leaves(steps):
    client = Client()
    reply = Reply(steps, (TEXT,))
    answer = answer_to(client, reply, scanner=FakeScanner())
    with pytest.raises(PolicyViolation):
        await relay(answer, client, Config())
    assert (client.body, reply.closed, answer.attempt.meter.withheld) == (b"a ", True, True)
    assert "end" not in client.journal


async def test_text_when_its_encoding_is_cut_then_what_was_held_stays():
    client = Client()
    with pytest.raises(UpstreamFailed):
        await relayed([gzip.compress(b"a KEY-1")[:-8]], headers=(TEXT, (b"Content-Encoding", b"gzip")), client=client)
    assert client.body == b"a "


FILE = (b"Content-Type", b"application/octet-stream")


@given(st.sets(st.integers(1, len(BODY) - 1)))
async def test_file_when_it_begins_as_text_then_it_is_scanned_whatever_its_label(places):
    client, meter = await relayed(cuts(BODY, places), headers=(FILE, announced(BODY)))
    assert client.body == BODY.replace(SECRET.encode(), MASK.encode())
    assert meter.terminated


TEXTUAL = "a text " * 80
BINARY = f"{TEXTUAL}{SECRET} KEY-12\0more {SECRET}".encode()


@given(st.sets(st.integers(1, len(BINARY) - 1)))
async def test_file_when_it_only_begins_as_text_then_what_follows_a_nul_is_binary(places):
    scanner, text = FakeScanner(), f"{TEXTUAL}{MASK} KEY-12"
    client, meter = await relayed(cuts(BINARY, places), scanner, (FILE,))
    assert client.body == f"{text}\0more {SECRET}".encode()
    assert (scanner.unread, meter.terminated) == ([("body", "binary")], True)
    client = Client()
    with pytest.raises(PolicyViolation) as caught:
        await relayed(cuts(BINARY, places), FakeScanner(unscannable="deny"), (FILE,), client)
    assert (caught.value.code, client.body) == ("answer_not_scannable", text.encode())
    client = Client()
    with pytest.raises(PolicyViolation):
        await relayed([TEXTUAL.encode() + b"BOOM\0"], headers=(FILE,), client=client)
    assert client.body == TEXTUAL.encode()


@pytest.mark.parametrize("begin", [b"\x89PNG text", b"%PDF-1.4 text", b"caf\xe9 text", b"\0"])
async def test_file_when_it_does_not_begin_as_text_then_it_passes(begin):
    scanner = FakeScanner()
    client, _ = await relayed([begin, SECRET.encode()], scanner, (FILE,))
    assert (client.body, scanner.unread, scanner.seen) == (begin + SECRET.encode(), [("body", "binary")], [])
