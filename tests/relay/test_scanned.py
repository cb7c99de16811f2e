"""The laws of scanned streams, over the relay that carries them; `openai.channels` says where text stands."""

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.openai import json_steps
from proxy.openai.sse import EventReader
from proxy.openai.sse_frame import reframed
from proxy.relay import scanned as module
from proxy.relay.bounded import relay_bounded
from proxy.relay.scanned import ScannedStream
from tests.fakes.garbage import garbage
from tests.fakes.scanner import MASK, SECRET, FakeScanner, masked
from tests.relay.peers import STREAM, Client, Reply, answer_to, cuts

PATIENT = settings(deadline=None)
DONE = b"data: [DONE]\n\n"


def event(document, end="\n", name="") -> bytes:
    head = f"event: {name}{end}" if name else ""
    return f"{head}data: {json.dumps(document, ensure_ascii=False)}{end}{end}".encode()


def chunk(delta, index=0, finish=None, **more):
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


def said(content, index=0):
    return event(chunk({"content": content}, index))


def finish(index=0):
    return event(chunk({}, index, "stop"))


async def relayed(
    steps, scanner=None, *, dialect="chat", headers=(STREAM,), event_bytes=1 << 20, allowance=None, **facts
):
    client, scanner = Client(), scanner or FakeScanner()
    answer = answer_to(client, Reply(steps, headers), dialect=dialect, scanner=scanner, **facts)
    await relay_bounded(answer, allowance, client, event_bytes=event_bytes, after_end_s=5.0)
    return client, answer


def documents(body: bytes) -> list[dict]:
    reader = EventReader(1 << 24)
    events = reader.feed(body)
    return [json.loads(found.data) for found in events if not found.data.startswith(b"[DONE]")]


def texts_of(body: bytes) -> dict:
    """What a client puts together: choice and member -> text; calls by their index."""
    texts: dict = {}
    for document in documents(body):
        for choice in document.get("choices", ()):
            for name, value in choice["delta"].items():
                for call in value if isinstance(value, list) else [None]:
                    key = (choice["index"], name) if call is None else (choice["index"], name, call["index"])
                    text = value if call is None else call["function"]["arguments"]
                    texts[key] = texts.get(key, "") + text
    return texts


async def test_stream_when_texts_waited_for_others_then_nothing_of_it_is_left_to_the_garbage_collector():
    with garbage() as left:
        await relayed([said("a KE"), said("Y-1234"), said("5678 B"), said("eta"), finish(), DONE])
    assert not left & {"Item", "Waiting", "Answer", "Reading", "_Gate", "Meter"}


async def test_events_when_nothing_can_match_then_each_leaves_at_once_as_it_came():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    for raw in (said("Hello"), said(" wörld \U0001f44b"), finish(), DONE):
        data = EventReader(1 << 20).feed(raw)[0].data
        document = None if data == b"[DONE]" else json.loads(data)
        assert scan.take(raw, data, None, document) == [raw]


def taken(scan, raw):
    data = EventReader(1 << 20).feed(raw)[0].data
    return scan.take(raw, data, None, None if data == b"[DONE]" else json.loads(data))


def test_event_when_its_end_could_become_a_match_then_it_waits_whole_and_leaves_as_it_came():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    first, second = said("the KEY"), said("board")
    assert taken(scan, first) == []
    assert scan.pass_by(b": ping\n", 7) == []
    assert taken(scan, second) == [first, b": ping\n", second]


def test_event_when_it_holds_a_part_of_a_match_then_the_mask_stands_where_that_begins():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, said("a KEY-12")) == []
    assert taken(scan, said("3456")) == []
    assert taken(scan, said("78 b")) == [said("a " + MASK), said(""), said(" b")]


def test_events_when_a_channel_ends_then_what_waited_leaves_before_its_end():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, said("KEY-1")) == []
    assert taken(scan, finish()) == [said("KEY-1"), finish()]


def test_events_when_another_choice_goes_on_then_order_is_kept():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, said("KE")) == []
    assert taken(scan, said("other", 1)) == []
    assert taken(scan, said("n", 0)) == [said("KE"), said("other", 1), said("n")]


def test_event_when_others_have_waited_long_behind_it_then_it_leaves_without_its_rest():
    now = 0.0
    scan = ScannedStream("chat", FakeScanner(), reframed, lambda: now)
    assert taken(scan, said("a KEY-1")) == []
    now = 1.5
    assert taken(scan, said("b", 1)) == [said("a "), said("b", 1)]
    assert taken(scan, said("2345678 c")) == [said(MASK + " c")]


def test_event_when_its_rest_finds_no_next_event_then_it_leaves_in_one_of_its_own():
    now = 0.0
    scanner = FakeScanner(hold_s=1.4)
    scan = ScannedStream("chat", scanner, reframed, lambda: now)
    call = {"index": 1, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "a KEY-1"}}
    assert taken(scan, event(chunk({"tool_calls": [call]}, usage={"x": 1}))) == []
    now = 1.5
    assert scan.pass_by(b": ping\n", 7)[-1] == b": ping\n"
    assert scanner.hurries == ["time"]
    alone = {"index": 1, "type": "function", "function": {"arguments": "KEY-1"}}
    out = taken(scan, finish())
    assert documents(b"".join(out)) == [chunk({"tool_calls": [alone]}), chunk({}, 0, "stop")]


def test_events_when_very_much_waits_then_the_first_leaves_without_its_rest():
    scanner = FakeScanner(hold_bytes=1000)
    scan = ScannedStream("chat", scanner, reframed)
    assert taken(scan, said("a K")) == []
    out = taken(scan, said("x" * 1000, 1))
    assert out[0] == said("a ")
    assert out[1] == said("x" * 1000, 1)
    assert scanner.hurries == ["size"]
    assert documents(b"".join(scan.end())) == [chunk({"content": "K"})]


def test_event_when_it_is_very_large_and_waits_alone_then_it_leaves_as_it_came():
    scan = ScannedStream("chat", FakeScanner(hold_bytes=3000), reframed)
    large, after = said("x" * 6000 + " K"), said("x" * 1000)
    assert taken(scan, large) == []
    assert taken(scan, after) == [large, after]


def test_stream_when_it_breaks_off_then_what_is_not_decided_never_leaves():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, said("a KEY-1")) == []
    assert taken(scan, said("b", 1)) == []
    assert taken(scan, said("234")) == []
    assert scan.abandon() == [said("a "), said("b", 1)]
    assert scan.end() == []


def test_stream_when_the_provider_says_that_it_failed_then_what_is_not_decided_never_leaves():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    failure = event({"error": {"message": "no"}})
    assert taken(scan, said("a KEY-1")) == []
    assert taken(scan, failure) == [said("a "), failure]


def test_stream_when_something_is_blocked_then_nothing_of_it_leaves():
    scanner = FakeScanner()
    scan = ScannedStream("chat", scanner, reframed)
    assert taken(scan, said("a BO")) == []
    assert taken(scan, said("b", 1)) == []
    assert taken(scan, said("OM c")) == [said("a ")]
    assert (scan.error.code, scan.error.param) == ("policy_violation", "choices[0].content")
    assert scanner.seen == [("choices[0].content", "boom")]


def test_stream_when_things_are_only_noted_then_nothing_waits():
    scanner = FakeScanner(edits=False)
    scan = ScannedStream("chat", scanner, reframed)
    for raw in (said("a KEY-1"), said("2345678 psst BO"), said("OM"), finish(), DONE):
        assert taken(scan, raw) == [raw]
    assert sorted(rule for _, rule in scanner.seen) == ["boom", "key", "psst"] or scanner.seen


def test_stream_when_every_event_says_that_it_is_the_last_then_that_is_not_believed():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    ends = [event(chunk({"content": text}, 0, "stop")) for text in ("a", "b", "KEY-1234", "5678")]
    out = b"".join(raw for one in (*ends, DONE) for raw in taken(scan, one))
    assert texts_of(out) == {(0, "content"): "ab" + MASK}


def test_text_when_it_follows_a_finish_reason_then_it_is_scanned_as_what_continues_the_text_before_it():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    first = taken(scan, event(chunk({"content": "a KEY-1234"}, 0, "stop")))
    assert texts_of(b"".join(first)) == {(0, "content"): "a KEY-1234"}
    rest = taken(scan, said("5678 b")) + taken(scan, DONE)
    assert texts_of(b"".join(rest)) == {(0, "content"): MASK + " b"}


async def test_secret_when_events_hold_numbers_that_clients_read_though_they_are_no_json_then_it_is_masked():
    events = [said(piece).replace(b'"logprobs": null', b'"score": NaN') for piece in ("a KEY", "-1234", "5678 b")]
    client, _ = await relayed([*events, DONE])
    assert texts_of(client.body) == {(0, "content"): f"a {MASK} b"}
    assert client.body.count(b"NaN") == 3


@pytest.mark.parametrize(
    "more",
    [
        {"citations": ["see BOOM"]},
        {"citations": ["one", "BOOM", "BOOM"]},
        {"x" * 20 + "-BOOM": 1},
        {"error": {"message": "BOOM"}},
    ],
    ids=["text", "texts", "name", "failure"],
)
def test_event_when_a_text_of_it_is_blocked_then_no_other_blocked_text_of_it_leaves(more):
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, said("before")) == [said("before")]
    out = b"".join(taken(scan, event(chunk({"content": "a BOOM"}, **more))))
    assert scan.error is not None
    assert b"BOOM" not in out


ITEM = {"output_index": 0, "content_index": 0}


@pytest.mark.parametrize(
    ("begin", "end", "rest"),
    [
        (
            {"type": "response.output_text.delta", **ITEM, "delta": "a KEY-1234"},
            {"type": "response.output_text.done", **ITEM, "text": ""},
            {"type": "response.output_text.delta", **ITEM, "delta": "5678 b"},
        ),
        (
            {"type": "response.output_text.delta", **ITEM, "delta": "a KEY-1234"},
            {"type": "response.completed", "response": {}},
            {"type": "response.output_text.delta", **ITEM, "delta": "5678 b"},
        ),
        (
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a KEY-1234"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "5678 b"}},
        ),
    ],
    ids=["part", "response", "block"],
)
def test_text_when_it_follows_the_end_of_its_channel_then_what_continues_a_match_is_masked(begin, end, rest):
    scan = ScannedStream("responses", FakeScanner(), reframed)
    out = b"".join(raw for one in (begin, end, rest) for raw in taken(scan, event(one)))
    out += b"".join(scan.end())
    assert b"5678" not in out
    assert MASK.encode() + b" b" in out


def spelling(*tokens, said="", finish=None):
    spelled = {"content": [{"token": token} for token in tokens]}
    choice = {"index": 0, "delta": {"content": said}, "logprobs": spelled, "finish_reason": finish}
    return event({"id": "c1", "choices": [choice]})


def test_log_probabilities_when_they_spell_what_no_text_says_then_they_are_scanned_as_a_text_of_their_own():
    scan = ScannedStream("chat", scanner := FakeScanner(), reframed)
    clean = spelling("no", " key")
    assert taken(scan, clean) == [clean]
    out = b"".join(raw for one in ("KEY", "-1234", "5678", " b") for raw in taken(scan, spelling(one)))
    out += b"".join(taken(scan, finish()))
    logprobs = [document["choices"][0]["logprobs"] for document in documents(out)]
    assert logprobs == [None, None, None, {"content": [{"token": " b"}]}, None]
    assert scanner.seen == [("choices[0].logprobs", "key")]


def test_log_probabilities_when_they_repeat_the_text_then_they_leave_with_it_and_are_not_scanned_again():
    scan = ScannedStream("chat", scanner := FakeScanner(), reframed)
    assert taken(scan, spelling("a", " b", said="a b")) == [spelling("a", " b", said="a b")]
    (out,) = taken(scan, spelling("KEY-", "12345678", said=SECRET + "."))
    assert documents(out)[0]["choices"][0]["logprobs"] is None
    assert scanner.seen == [("choices[0].content", "key")]


def test_log_probabilities_when_they_wait_at_the_end_then_no_event_is_made_for_them():
    scan = ScannedStream("chat", FakeScanner(hold_bytes=1), reframed)
    out = b"".join(raw for one in (spelling("a KEY-12"), said("b")) for raw in taken(scan, one))
    out += b"".join(scan.end())
    assert [document["choices"][0]["logprobs"] for document in documents(out)] == [None, None]
    assert b"KEY" not in out


def named(name, index=3, **more):
    return event(chunk({"tool_calls": [{"index": index, "function": {"name": name, "arguments": "", **more}}]}))


def test_name_of_a_tool_when_it_is_split_then_no_piece_waits_and_the_rest_of_a_match_is_masked():
    scan = ScannedStream("chat", scanner := FakeScanner(), reframed)
    for whole in (named("KEY"), named("board"), named("KEY-", 4), named("get", 4)):
        assert taken(scan, whole) == [whole]
    assert taken(scan, named("KEY-1234", 5)) == [named("KEY-1234", 5)]
    assert taken(scan, named("5678-b", 5)) == [named(MASK + "-b", 5)]
    assert scanner.seen == [("choices[0].tool_calls[5].function.name", "key")]
    assert taken(scan, said("a KEY-1")) == []
    assert taken(scan, finish()) == [said("a KEY-1"), finish()]


def test_name_of_a_tool_when_it_is_complete_and_matches_then_it_is_masked_at_once():
    scan = ScannedStream("chat", FakeScanner(), reframed)
    assert taken(scan, named(SECRET, arguments="{}")) == [named(MASK, arguments="{}")]
    assert taken(scan, named(SECRET, arguments="{}")) == [named(MASK, arguments="{}")]


def test_streams_when_more_channels_end_than_are_remembered_then_the_latest_are(monkeypatch):
    monkeypatch.setattr(module, "_MOST_ENDED", 1)
    scan = ScannedStream("chat", FakeScanner(), reframed)
    for index in (0, 1):
        taken(scan, event(chunk({"content": "KEY-1234"}, index, "stop")))
    rest = [raw for index in (0, 1) for raw in taken(scan, said("5678 ", index))] + taken(scan, DONE)
    assert texts_of(b"".join(rest)) == {(0, "content"): "5678 ", (1, "content"): MASK + " "}


def test_stream_when_it_opens_channels_without_end_then_it_is_scanned_event_by_event():
    scanner = FakeScanner(max_channels=3)
    scan = ScannedStream("chat", scanner, reframed)
    for index in range(3):
        taken(scan, said("a", index))
    assert taken(scan, said(SECRET, -7)) == [said(MASK, -7)]
    assert scanner.unread == [("channels", "too_large")]


def test_stream_when_media_may_not_pass_then_it_ends_before_them():
    scanner = FakeScanner(unscannable="deny")
    scan = ScannedStream("chat", scanner, reframed)
    assert taken(scan, said("a K")) == []
    assert taken(scan, event(chunk({"audio": {"data": "QUJD"}}))) == [said("a ")]
    assert (scan.error.code, scan.error.http_status) == ("answer_not_scannable", 502)
    assert scanner.unread == [("choices[0].delta.audio.data", "media")]


def test_logprobs_when_their_text_is_masked_then_they_go():
    tokens = {"content": [{"token": SECRET, "logprob": 0, "bytes": [75]}]}
    document = chunk({"content": SECRET})
    document["choices"][0]["logprobs"] = tokens
    [out] = taken(ScannedStream("chat", FakeScanner(), reframed), event(document))
    assert documents(out) == [chunk({"content": MASK})]


def test_snapshot_when_it_repeats_a_channel_then_it_is_masked_alike_and_noted_once():
    scanner = FakeScanner()
    scan = ScannedStream("responses", scanner, reframed)
    where = {"item_id": "i", "output_index": 0, "content_index": 0}
    delta = {"type": "response.output_text.delta", **where, "delta": "a KEY-1", "logprobs": []}
    more = {"type": "response.output_text.delta", **where, "delta": "2345678", "logprobs": [{"token": "2345678"}]}
    done = {"type": "response.output_text.done", **where, "text": f"a {SECRET}", "logprobs": [{"token": SECRET}]}
    item = {"type": "message", "content": [{"type": "output_text", "text": f"a {SECRET}", "logprobs": []}]}
    item_done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    completed = {"type": "response.completed", "response": {"object": "response", "output": [item]}}
    out = [raw for one in (delta, more, done, item_done, completed) for raw in taken(scan, event(one))]
    assert SECRET.encode() not in b"".join(out)
    assert [found.get("delta") for found in documents(b"".join(out))[:2]] == ["a " + MASK, ""]
    assert b"".join(out).count(b"a " + MASK.encode()) == 4
    assert scanner.seen == [("output[0].content[0].response.output_text", "key")]


PIECES = st.sampled_from(["K", "KE", "KEY-", "KEY-12", "345678", "12345678", SECRET, " ", "B", "é", "\U0001f44b", "ab"])
CHANNELS = st.sampled_from(
    [
        (0, "content"),
        (1, "content"),
        (0, "reasoning_content"),
        (0, "tool_calls", 0),
        (0, "tool_calls", 1),
        (1, "refusal"),
    ]
)


def delta_of(channel, text):
    if len(channel) == 2:
        return {channel[1]: text}
    return {"tool_calls": [{"index": channel[2], "function": {"arguments": text}}]}


@PATIENT
@given(
    st.lists(st.tuples(CHANNELS, PIECES), max_size=24),
    st.lists(st.integers(1, 3000), max_size=6),
    st.booleans(),
    st.booleans(),
)
async def test_stream_when_anything_is_said_in_any_order_then_each_channel_is_masked_like_the_whole(
    script, places, strip, broken
):
    stream = b"".join(event(chunk(delta_of(channel, text), channel[0], usage=None)) for channel, text in script)
    stream += finish(0) + finish(1) + DONE
    client, _ = await relayed(cuts(stream, places), strip_usage=strip)
    whole: dict = {}
    for channel, text in script:
        whole[channel] = whole.get(channel, "") + text
    assert texts_of(client.body) == {channel: masked(text) for channel, text in whole.items()}
    in_one_piece, _ = await relayed([stream], strip_usage=strip)
    assert client.body == in_one_piece.body
    if all(masked(text) == text for text in whole.values()):
        assert client.body == (stream.replace(b', "usage": null', b"") if strip else stream)
    if broken:
        client = Client()
        reply = Reply([*cuts(stream, places)[:-1], UpstreamFailed("cut")], (STREAM,))
        with pytest.raises(UpstreamFailed):
            await relay_bounded(
                answer_to(client, reply, scanner=FakeScanner()), None, client, event_bytes=1 << 20, after_end_s=5.0
            )
        for channel, text in texts_of(client.body).items():
            assert masked(whole[channel]).startswith(text)


LINE_ENDS = ["\n", "\r", "\r\n"]


@pytest.mark.parametrize("end", LINE_ENDS, ids=["LF", "CR", "CRLF"])
async def test_stream_when_torn_at_any_byte_then_the_client_gets_the_same(end):
    texts = ["Hi KE", "Y", "-1234", "5678 é", " K"]
    stream = b"".join(
        [
            b"\xef\xbb\xbf: ping" + end.encode(),
            event(chunk({"role": "assistant", "content": ""}), end, "x"),
            *(f"id: 7{end}".encode() + event(chunk({"content": text}), end, "chunk") for text in texts),
            b": between" + end.encode(),
            event(chunk({}, 0, "stop"), end),
            b"data: [DONE]\n\n",
        ]
    )
    whole, _ = await relayed([stream])
    assert texts_of(whole.body) == {(0, "role"): "assistant", (0, "content"): f"Hi {MASK} é K"}
    assert whole.body == stream.replace(b"Hi KE", f"Hi {MASK}".encode()).replace(b'"Y"', b'""').replace(
        b"-1234", b""
    ).replace(b"5678 ", b" ")
    for at in range(len(stream)):
        client, answer = await relayed(cuts(stream, [at]))
        assert client.body == whole.body, at
        assert answer.attempt.meter.terminated


LARGE = json_steps.LARGE_BYTES


@pytest.mark.parametrize("edits", [True, False])
async def test_event_when_it_is_large_then_it_is_masked_like_the_whole_and_its_findings_are_taken(edits):
    text = ("so much to say, " * 5000 + SECRET + " and ") * 5 + SECRET[:3]
    scanner = FakeScanner(edits=edits)
    client, _ = await relayed([said(text) + said(SECRET[3:]) + finish() + DONE], scanner, event_bytes=1 << 23)
    whole = text + SECRET[3:]
    assert texts_of(client.body) == {(0, "content"): masked(whole) if edits else whole}
    assert scanner.seen == [("choices[0].content", "key")] * 6
    assert scanner.channels[0].findings == []


def test_event_when_it_is_large_and_waits_then_its_document_is_not_kept():
    stream = ScannedStream("chat", FakeScanner(), reframed)
    raw = said("x" * LARGE + SECRET[:3])
    data = raw[6:-2]
    document = json.loads(data)
    assert stream.take(raw, data, None, document) == []
    json_steps.dissolve(document)
    (first, *_) = stream.take(said(SECRET[3:]), said(SECRET[3:])[6:-2], None, json.loads(said(SECRET[3:])[6:-2]))
    assert texts_of(first) == {(0, "content"): "x" * LARGE + MASK}


@pytest.mark.parametrize("following", [said(SECRET[3:]) + DONE, DONE, b""])
async def test_event_when_it_is_large_then_it_is_rewritten_in_a_thread_whatever_lets_it_go(monkeypatch, following):
    on_main, with_texts = [], module.with_texts

    def watched(*arguments):
        on_main.append(threading.current_thread() is threading.main_thread())
        return with_texts(*arguments)

    monkeypatch.setattr(module, "with_texts", watched)
    text = SECRET + " x" * LARGE + SECRET[:3]
    client, _ = await relayed([said(text), following], event_bytes=1 << 23)
    assert texts_of(client.body)[0, "content"] == masked(text + (SECRET[3:] if len(following) > len(DONE) else ""))
    assert on_main and not any(on_main)
