import asyncio
import gzip
import json
import zlib
from itertools import chain, islice, repeat

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.schema import Config
from proxy.errors import ClientDisconnected, UpstreamFailed, UpstreamTimeout
from proxy.exchange import Capture, Exchange, Inbound, Operation, Usage
from proxy.openai.sse_cut import EventCutter
from proxy.openai.stream_end import MOST_CHOICES
from proxy.phases.outcome import outcome_of
from proxy.relay.bounded import can_be_bounded, relay_bounded
from proxy.relay.reading import Reading
from proxy.relay.relay import relay
from tests.fakes.answers import WORDS, chat_stream, completion_stream, response_stream
from tests.fakes.scanner import MASK, SECRET, FakeScanner
from tests.relay.peers import STREAM, Allowed, Client, Reply, announced, answer_to, cuts

PLENTY = 1 << 30
PATIENT = settings(deadline=None)
DONE = b"data: [DONE]\n\n"
SHARED = b'{"id":"c1","object":"chat.completion.chunk","created":7,"model":"gpt-4o"'
LENGTH = b'data: %b,"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}]}\n\n' % SHARED


def chunk(content: str, more: bytes = b"") -> bytes:
    return b'data: %b,"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]%b}\n\n' % (
        SHARED,
        content.encode(),
        more,
    )


NULL = b',"usage":null'
USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
FIRST = b": ping\r\n\r\n" + chunk("", NULL).replace(b"\n", b"\r\n") + chunk("h\xe4", NULL)
SECOND = b"event: x\rid: 3\r: in between\r" + chunk("llo \U0001f44b", NULL).replace(b"\n", b"\r")
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
ASKED = b"\xef\xbb\xbf" + FIRST + b":\n" + SECOND + chunk("!!", NULL) + FINISH + USAGE_EVENT + b": bye\n" + DONE
FIRST_BYTES = len("h\xe4".encode())
TEXT_BYTES = len("h\xe4llo \U0001f44b!!".encode())
ENCODINGS = {
    b"": lambda data: data,
    b"gzip": lambda data: gzip.compress(data, mtime=0),
    b"deflate": zlib.compress,
}


def stripped(stream: bytes) -> bytes:
    return stream.replace(NULL, b"").replace(USAGE_EVENT, b"")


async def relayed(
    steps, allowance, headers=(STREAM,), *, client=None, event_bytes=1 << 20, after_end_s=5.0, reply=None, **facts
):
    client = client or Client()
    answer = answer_to(client, reply or Reply(steps, headers), allowance=allowance, **facts)
    await relay_bounded(answer, allowance, client, event_bytes=event_bytes, after_end_s=after_end_s)
    return client, answer


def encoded(data: bytes, encoding: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    return ENCODINGS[encoding](data), (STREAM, (b"Content-Encoding", encoding)) if encoding else (STREAM,)


@pytest.mark.parametrize("strip", [False, True], ids=["as it is", "edited"])
@pytest.mark.parametrize(
    ("text_bytes", "expected"),
    [
        pytest.param(PLENTY, ASKED, id="covered"),
        pytest.param(FIRST_BYTES, ASKED[: ASKED.index(SECOND)] + LENGTH + DONE, id="cut"),
        pytest.param(TEXT_BYTES - 1, ASKED[: ASKED.index(chunk("!!", NULL))] + LENGTH + DONE, id="cut late"),
    ],
)
async def test_stream_when_torn_at_any_byte_then_the_client_gets_the_same(text_bytes, expected, strip):
    expected = stripped(expected) if strip else expected
    for at in range(len(ASKED)):
        allowance = Allowed(text_bytes)
        client, answer = await relayed(cuts(ASKED, [at]), allowance, strip_usage=strip)
        assert client.body == expected, at
        assert client.journal[-1] == "end"
        is_cut = text_bytes != PLENTY
        meter = answer.attempt.meter
        assert (meter.cut, meter.terminated, len(allowance.asked)) == (is_cut, not is_cut, is_cut), at


@PATIENT
@given(
    st.sets(st.integers(1, len(ASKED) - 1)),
    st.booleans(),
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(0, TEXT_BYTES),
    st.lists(st.integers(1, 4), max_size=3),
)
async def test_stream_when_cut_and_encoded_anyhow_then_the_same_as_in_one_piece(places, strip, encoding, first, more):
    whole, _ = await relayed([ASKED], Allowed(first, *more), strip_usage=strip)
    data, headers = encoded(ASKED, encoding)
    client, answer = await relayed(cuts(data, places), Allowed(first, *more), headers, strip_usage=strip)
    assert client.body == whole.body
    assert (client.headers, client.length) == ((STREAM,), None)
    meter = answer.attempt.meter
    assert meter.cut is not meter.terminated
    last_byte = len(client.journal) - 1 - client.journal[::-1].index("byte")
    assert "seal" in client.journal[:last_byte]


LINE_ENDS = [b"\n", b"\r", b"\r\n"]
PARTS = st.lists(
    st.sampled_from(
        [
            *(chunk(text).replace(b"\n", end) for text in ("ab", "h\xe4") for end in LINE_ENDS),
            *(FINISH, DONE, b": c\n", b"id: 4\n", b"data: {\n", b"event: e\r\n", chunk("zz")[:-1], b"\xef\xbb\xbf"),
            *LINE_ENDS,
        ]
    ),
    min_size=1,
    max_size=9,
).map(b"".join)


@PATIENT
@given(PARTS, st.lists(st.integers(1, 900), max_size=6), st.integers(0, 8), st.booleans())
async def test_stream_when_any_events_are_cut_anyhow_then_the_same_as_in_one_piece(stream, places, text_bytes, strip):
    whole, _ = await relayed([stream], Allowed(text_bytes), strip_usage=strip)
    client, _ = await relayed(cuts(stream, places), Allowed(text_bytes), strip_usage=strip)
    assert client.body == whole.body


@PATIENT
@given(st.lists(st.binary(min_size=1, max_size=12), max_size=8), st.sampled_from(["chat", "responses", "generic"]))
async def test_stream_when_it_is_any_bytes_and_covered_then_they_pass(pieces, dialect):
    client, _ = await relayed(pieces, Allowed(PLENTY), dialect=dialect)
    assert client.body == b"".join(pieces)


@PATIENT
@given(st.sets(st.integers(1, len(ASKED) - 1)), st.booleans())
async def test_stream_when_always_covered_then_the_bytes_are_those_without_an_allowance(places, strip):
    results = []
    for allowance in (None, Allowed(PLENTY)):
        client = Client()
        answer = answer_to(client, Reply(cuts(ASKED, places), (STREAM,)), strip_usage=strip, allowance=allowance)
        await relay(answer, client, Config())
        answer.attempt.first_byte_at = None
        results.append((client.body, client.headers, client.length, answer.attempt.meter))
    assert results[0] == results[1]


async def test_stream_when_cut_then_what_was_dropped_is_metered_and_the_provider_is_not_read_any_further():
    reply = Reply([chunk("ab") + chunk("cd"), AssertionError("read on")], (STREAM,))
    client = Client()
    answer = answer_to(client, reply, allowance=Allowed(2))
    await relay_bounded(answer, answer.allowance, client, event_bytes=1 << 20, after_end_s=1)
    assert client.body == chunk("ab") + LENGTH + DONE
    assert (answer.attempt.meter.output_text_bytes, answer.attempt.meter.usage) == (4, None)
    assert not answer.can_end_with_error
    operation = Operation("chat.completions.create", "chat", "json", "chat", billable=True)
    x = Exchange("id", 0, 0.0, Inbound("POST", "/v1/x", "/v1/x", (), {}, operation, None, None, True))
    x.attempts.append(answer.attempt)
    assert outcome_of(x) == "quota_cut"


async def test_stream_when_cut_then_the_provider_is_dropped_and_the_record_made_before_the_end_leaves():
    client, sealed_at = Client(), []
    reply = Reply([chunk("ab"), chunk("cd")], (STREAM,))
    answer = answer_to(client, reply, allowance=Allowed(2))
    answer.seal = lambda: sealed_at.append((len(client.body), reply.closed))
    await relay_bounded(answer, answer.allowance, client, event_bytes=1 << 20, after_end_s=1)
    assert sealed_at == [(len(chunk("ab")), True)]


async def test_stream_when_extended_then_it_goes_on_and_is_asked_for_new_text_only():
    allowance = Allowed(2, 2, 2)
    client, answer = await relayed([chunk("ab"), chunk("cd") + FINISH, chunk("ef"), chunk("g"), DONE], allowance)
    assert client.body == chunk("ab") + chunk("cd") + FINISH + chunk("ef") + DONE
    assert allowance.asked == [4, 6, 7]
    assert answer.attempt.meter.cut


async def test_stream_when_the_allowance_is_asked_for_then_what_was_covered_has_left():
    granted, client = asyncio.Event(), Client()
    work = asyncio.create_task(relayed([chunk("ab") + chunk("cd"), DONE], Allowed(2, 9, wait=granted), client=client))
    for _ in range(10):
        await asyncio.sleep(0)
    assert client.body == chunk("ab")
    granted.set()
    await work
    assert client.body == chunk("ab") + chunk("cd") + DONE


async def test_stream_when_nothing_is_left_then_what_holds_no_text_still_passes():
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":300}}\n\n'
    allowance = Allowed(-1)
    client, answer = await relayed([chunk(""), b": ping\n", FINISH, usage, DONE], allowance)
    assert client.body == chunk("") + b": ping\n" + FINISH + usage + DONE
    assert (allowance.asked, answer.attempt.meter.usage) == ([], Usage(7, 300))


async def test_stream_when_an_event_is_half_there_then_it_waits_and_comments_do_not():
    silence, client = asyncio.Event(), Client()
    work = asyncio.create_task(
        relayed([chunk("ab") + b": ping\n" + chunk("cd")[:30], silence], Allowed(9), client=client)
    )
    for _ in range(10):
        await asyncio.sleep(0)
    assert client.body == chunk("ab") + b": ping\n"
    work.cancel()
    await asyncio.wait([work])


async def test_stream_when_it_ends_without_an_empty_line_then_its_last_event_is_asked_for_too():
    for strip in (False, True):
        client, answer = await relayed([chunk("ab"), chunk("cd")[:-2]], Allowed(2), strip_usage=strip)
        assert client.body == chunk("ab") + LENGTH + DONE
        client, answer = await relayed([chunk("ab"), DONE[:-2]], Allowed(2), strip_usage=strip)
        assert (client.body, answer.attempt.meter.terminated) == (chunk("ab") + DONE[:-2], True)


@pytest.mark.parametrize("dialect", ["chat", "responses", "audio", "generic"])
async def test_stream_when_it_ends_without_its_terminator_then_complete_only_where_there_is_none(dialect):
    client, answer = await relayed([b'data: {"type":"x"}\n\n'], Allowed(1), dialect=dialect)
    assert answer.attempt.meter.terminated is (dialect == "generic")
    assert client.journal == ["head", "byte", "seal", "end"]


async def test_stream_when_all_of_it_has_arrived_already_then_it_is_bounded_too():
    for allowance, is_cut in ((Allowed(PLENTY), False), (Allowed(FIRST_BYTES), True)):
        client = Client()
        answer = answer_to(client, Reply([ASKED], (STREAM,), at_once=True), allowance=allowance)
        await relay_bounded(answer, allowance, client, event_bytes=1 << 20, after_end_s=1)
        assert (client.body == ASKED, answer.attempt.meter.cut) == (not is_cut, is_cut)


async def test_stream_when_the_provider_stays_open_after_the_end_then_it_ends_in_time():
    for silence in (asyncio.Event(), UpstreamTimeout("slow")):
        client, _ = await relayed([ASKED, silence], Allowed(PLENTY), after_end_s=0.01)
        assert (client.body, client.journal[-1]) == (ASKED, "end")


@pytest.mark.parametrize("strip", [False, True], ids=["as it is", "edited"])
async def test_stream_when_the_provider_breaks_off_then_an_error_event_can_follow_also_after_half_an_event(strip):
    client = Client()
    steps = [chunk("ab"), chunk("cd")[:30], UpstreamFailed("cut")]
    answer = answer_to(client, Reply(steps, (STREAM,)), allowance=Allowed(9), strip_usage=strip)
    with pytest.raises(UpstreamFailed):
        await relay_bounded(answer, answer.allowance, client, event_bytes=1 << 20, after_end_s=1)
    assert client.body == chunk("ab")
    assert answer.can_end_with_error


async def test_stream_when_an_event_is_too_large_to_hold_then_all_of_it_counts_as_text_unless_it_must_be_edited():
    large = chunk("x" * 4000)
    steps = [large[:2500], large[2500:], chunk("ab"), chunk("cd"), DONE]
    client, answer = await relayed(steps, Allowed(len(large) + 2), event_bytes=200)
    assert client.body == large + chunk("ab") + LENGTH + DONE
    assert answer.attempt.meter.output_text_bytes == len(large) + 4
    with pytest.raises(UpstreamFailed) as caught:
        await relayed(steps, Allowed(len(large) + 2), event_bytes=200, strip_usage=True)
    assert caught.value.code == "upstream_event_too_large"


@pytest.mark.parametrize(("allowed", "left", "ending"), [(2400, 0, "end"), (2500, 2500, "cut")])
async def test_stream_when_an_event_too_large_to_hold_is_not_covered_then_it_ends_where_the_allowance_does(
    allowed, left, ending
):
    large = chunk("x" * 4000)
    client, answer = await relayed([large[:2500], large[2500:], DONE], Allowed(allowed), event_bytes=200)
    assert client.body == (large[:left] if left else DONE)
    assert answer.attempt.meter.cut
    assert client.journal[-1] == ending


async def test_stream_when_cut_off_within_an_event_too_large_to_hold_then_nothing_can_follow():
    client = Client()
    steps = [chunk("x" * 4000)[:2500], UpstreamFailed("cut")]
    answer = answer_to(client, Reply(steps, (STREAM,)), allowance=Allowed(2500))
    with pytest.raises(UpstreamFailed):
        await relay_bounded(answer, answer.allowance, client, event_bytes=200, after_end_s=1)
    assert len(client.body) == 2500
    assert not answer.can_end_with_error


async def test_stream_when_it_is_not_in_its_encoding_or_cut_within_it_then_the_provider_failed():
    data, headers = encoded(chunk("ab"), b"gzip")
    for steps, code in (([chunk("ab")], "upstream_bad_encoding"), ([data[:-9]], "upstream_body_cut")):
        with pytest.raises(UpstreamFailed) as caught:
            await relayed(steps, Allowed(9), headers)
        assert caught.value.code == code


async def test_stream_when_captured_then_what_the_client_got_is_kept():
    capture = Capture(limit_bytes=10_000)
    client, answer = await relayed([chunk("ab"), chunk("cd")], Allowed(2), capture=capture)
    assert client.kept == client.body
    assert answer.attempt.first_byte_at is not None


async def test_stream_when_the_client_leaves_while_it_is_ended_then_the_error_escapes_and_the_record_is_made():
    client = Client(leaves_after=len(chunk("ab")) + 1)
    answer = answer_to(client, Reply([chunk("ab"), chunk("cd")], (STREAM,)), allowance=Allowed(2))
    with pytest.raises(ClientDisconnected):
        await relay_bounded(answer, answer.allowance, client, event_bytes=1 << 20, after_end_s=1)
    assert client.journal == ["head", "byte", "seal", "byte"]


@pytest.mark.parametrize(
    ("dialect", "headers", "is_bounded"),
    [
        ("chat", (STREAM,), True),
        ("responses", (STREAM, (b"Content-Encoding", b"gzip")), True),
        ("images", (STREAM,), False),
    ],
)
async def test_relay_when_text_cannot_be_seen_then_the_stream_passes_unbounded(dialect, headers, is_bounded):
    client = Client()
    allowance = Allowed(0)
    answer = answer_to(client, Reply([chunk("ab")[:20]], headers), dialect=dialect, allowance=allowance)
    assert can_be_bounded(answer) is is_bounded
    if not is_bounded:
        await relay(answer, client, Config())
        assert (client.body, client.headers) == (chunk("ab")[:20], headers)


REQUEST = {"model": "gpt-4o-mini", "messages": [], "input": "hi", "stream_options": {"include_usage": True}}
STREAMS = {"chat": chat_stream, "completions": completion_stream, "responses": response_stream}
CALLS = {
    "chat": lambda sdk: sdk.chat.completions.create(model="m", messages=[], stream=True),
    "completions": lambda sdk: sdk.completions.create(model="m", prompt="p", stream=True),
    "responses": lambda sdk: sdk.responses.create(model="m", input="i", stream=True),
}


async def seen_by_sdk(dialect, text_bytes, at_limit):
    """Return what the official SDK yields for a stream that is bounded, and what ended it."""
    pieces = STREAMS[dialect](REQUEST, "case").pieces
    client, _ = await relayed(pieces, Allowed(text_bytes), dialect=dialect, at_limit=at_limit, asked_for_usage=True)
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, content=client.body)
    )
    seen = []
    with openai.OpenAI(api_key="k", base_url="http://x.test", http_client=httpx.Client(transport=transport)) as sdk:
        try:
            seen.extend(CALLS[dialect](sdk))
        except openai.APIError as error:
            return seen, error
    return seen, None


def text_of(dialect, seen):
    if dialect == "chat":
        return "".join(part.choices[0].delta.content or "" for part in seen if part.choices)
    if dialect == "completions":
        return "".join(part.choices[0].text for part in seen if part.choices)
    return "".join(event.delta for event in seen if event.type == "response.output_text.delta")


@pytest.mark.parametrize("dialect", list(STREAMS))
@pytest.mark.parametrize("words", range(len(WORDS)))
async def test_end_when_the_sdk_reads_it_then_a_regular_end_of_whole_words(dialect, words):
    expected = "".join(WORDS[:words])
    seen, error = await seen_by_sdk(dialect, len(expected.encode()), "finish")
    assert error is None
    assert text_of(dialect, seen) == expected
    if dialect == "responses":
        last = seen[-1]
        assert (last.type, last.response.status) == ("response.incomplete", "incomplete")
        assert last.response.incomplete_details.reason == "max_output_tokens"
        assert last.response.id == seen[0].response.id == "resp_case"
        assert [event.sequence_number for event in seen] == list(range(len(seen)))
    else:
        assert [part.choices[0].finish_reason for part in seen] == [None] * (len(seen) - 1) + ["length"]
        assert len({(part.id, part.object, part.created, part.model) for part in seen}) == 1
        assert [part.usage for part in seen] == [None] * len(seen)


@pytest.mark.parametrize("dialect", list(STREAMS))
async def test_end_when_it_is_to_be_an_error_then_the_sdk_raises_it(dialect):
    seen, error = await seen_by_sdk(dialect, len(WORDS[0].encode()), "error")
    assert text_of(dialect, seen) == WORDS[0]
    assert (error.code, error.type, error.message) == ("insufficient_quota", "insufficient_quota", "Nothing is left.")


async def test_end_when_several_choices_are_open_then_each_is_finished():
    def of(index, **choice):
        document = {"id": "c", "choices": [{"index": index, "delta": {"content": "ab"}, **choice}]}
        return b"data: %b\n\n" % json.dumps(document).encode()

    client, _ = await relayed([of(0) + of(1) + of(2), of(1, finish_reason="stop"), of(0)], Allowed(8))
    *_, first, second, done, rest = client.body.split(b"\n\n")
    assert [json.loads(one[6:])["choices"][0]["index"] for one in (first, second)] == [0, 2]
    assert (done, rest) == (DONE[:-2], b"")


async def test_end_when_the_dialect_has_none_then_an_error_event():
    delta = b'data: {"type":"transcript.text.delta","delta":"ab"}\n\n'
    client, _ = await relayed([delta, delta], Allowed(2), (STREAM, announced(delta * 2)), dialect="audio")
    assert client.body.startswith(delta + b'event: error\ndata: {"type":"error","error":{')
    assert client.length is None


def usual(content: str, index: int = 0, name: str = "content", more: str = "") -> bytes:
    choice = f'{{"index":{index},"delta":{{"{name}":{json.dumps(content)}}},"finish_reason":null}}'
    return b'data: %b,"choices":[%b],"usage":null%b}\n\n' % (SHARED, choice.encode(), more.encode())


TEXT = st.sampled_from('a| the| KE|Y-123|45678| BO|OM|psst|\u00e9|\U0001f44b|\n|"|usage'.split("|"))
EVENTS = st.one_of(
    st.builds(usual, TEXT),
    st.builds(
        usual, TEXT, st.just(0), st.just("content"), st.sampled_from([',"obfuscation":"aB3"', ',"obfuscation":"xyz1"'])
    ),
    st.builds(usual, TEXT, st.integers(0, 1), st.sampled_from(["content", "reasoning_content", "refusal"])),
    st.sampled_from([FINISH, USAGE_EVENT, b": ping\n\n", usual("", more=',"x":"KEY-12345678"'), b"data: {\n\n"]),
)


def told(content: str, number: int, kind: str = "output_text", part: int = 0, more: str = "") -> bytes:
    """Return an event of a response."""
    name = f"response.{kind}.delta"
    data = f'{{"type":"{name}","sequence_number":{number},"item_id":"m1","output_index":0,"content_index":{part},'
    return f'event: {name}\ndata: {data}"delta":{json.dumps(content)},"logprobs":[]{more}}}\n\n'.encode()


def called(arguments: str, index: int = 0, place: int = 0, more: str = "") -> bytes:
    """Return a chunk with a part of the arguments of a tool call."""
    call = f'{{"index":{place}{more},"function":{{"arguments":{json.dumps(arguments)}}}}}'
    choice = f'{{"index":{index},"delta":{{"tool_calls":[{call}]}},"finish_reason":null}}'
    return b'data: %b,"choices":[%b],"usage":null}\n\n' % (SHARED, choice.encode())


def completed(text: str, index: int = 0) -> bytes:
    choice = json.dumps({"text": text, "index": index, "logprobs": None, "finish_reason": None})
    return b'data: %b,"choices":[%b],"usage":null}\n\n' % (SHARED, choice.encode())


NUMBERS = st.sampled_from([0, 9, 10, 123, 10**15, 10**16])
OF_DIALECT = {
    "chat": EVENTS,
    "calls": st.one_of(
        st.builds(
            called, TEXT, st.integers(0, 1), st.integers(0, 1), st.sampled_from(["", "", ',"id":"c1"', ',"id":"c2"'])
        ),
        st.builds(called, st.sampled_from(['{"a":"', "b ", 'KEY-12345678"', "}"])),
        EVENTS,
    ),
    "completions": st.one_of(st.builds(completed, TEXT, st.integers(0, 1)), EVENTS),
    "responses": st.one_of(
        st.builds(told, TEXT, NUMBERS),
        st.builds(
            told,
            TEXT,
            NUMBERS,
            st.sampled_from(["output_text", "refusal", "function_call_arguments", "audio"]),
            st.integers(0, 1),
            st.sampled_from(["", ',"obfuscation":"a"', ',"obfuscation":"Zz9"', ',"note":"KEY-12345678"', ',"error":1']),
        ),
        st.just(told("a", 7).replace(b'"sequence_number":7', b'"sequence_number":07')),
        EVENTS,
    ),
}


@pytest.mark.parametrize("kind", OF_DIALECT)
@settings(deadline=None, max_examples=250)
@given(
    st.data(),
    st.lists(st.integers(1, 4000), max_size=6),
    st.one_of(st.none(), st.integers(0, 40)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["finish", "error"]),
)
async def test_stream_when_chunks_repeat_then_the_same_as_when_each_is_decoded(
    kind, data, places, text_bytes, strip, is_scanned, at_limit
):
    """An event without a blank after its colon is framed in an unusual way, and always decoded."""
    dialect = "chat" if kind == "calls" else kind
    stream = b"".join(data.draw(st.lists(OF_DIALECT[kind], max_size=30))) + DONE + usual("late")
    results = []
    for decoded in (False, True):
        sent = stream.replace(b"data: ", b"data:") if decoded else stream
        allowance = None if text_bytes is None else Allowed(text_bytes)
        scanner = FakeScanner() if is_scanned else None
        client, answer = await relayed(
            cuts(sent, places), allowance, dialect=dialect, strip_usage=strip, scanner=scanner, at_limit=at_limit
        )
        meter = answer.attempt.meter
        meter.response_bytes = 0
        found = None if scanner is None else (scanner.seen, scanner.characters)
        results.append((client.body.replace(b"data: ", b"data:"), meter, found))
    assert results[0] == results[1]


def test_stream_when_chunks_repeat_then_only_their_text_is_decoded():
    words = ["a", " b", "\u4e16"] * 20
    stream = [usual(word, more=f',"obfuscation":"{number:x}"') for number, word in enumerate(words)]
    answer = answer_to(Client(), Reply([]), strip_usage=True)
    reading = Reading(answer, 1 << 20)
    for number, event in enumerate(stream):
        (read,) = reading.events(event)
        assert (read.text, read.document is None) == ((words[number], True) if number else ("", False))
        assert reading.admit(read) == event.replace(NULL, b"")
    assert answer.attempt.meter.text_deltas == len(stream)


def test_stream_when_large_events_come_first_then_none_of_the_tries_to_find_a_repetition_is_spent_on_them():
    """A try takes 0.15 ms per KB, and what is large is never compared."""
    reading = Reading(answer_to(Client(), Reply([])), 1 << 20)
    for number in range(20):
        (read,) = reading.events(usual(f"{number} " * 1000))
        reading.admit(reading.read(read) if read.is_unread else read)
    told = [reading.events(usual(word))[0].text for word in "abc"]
    assert told == ["", "b", "c"]


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [
        pytest.param("chat", [usual("a", index) for index in (0, 1, 2, 3)] * 3, id="choices"),
        pytest.param("chat", [called("a", place=place) for place in (0, 1)] * 3, id="calls"),
        pytest.param("completions", [completed("a")] * 3, id="completions"),
        pytest.param(
            "responses", [told("a", number, more=',"obfuscation":"x"') for number in range(12)], id="responses"
        ),
    ],
)
async def test_stream_when_events_take_turns_or_are_numbered_then_only_their_text_is_decoded(dialect, stream):
    client, answer = await relayed(stream, None, dialect=dialect, scanner=FakeScanner())
    assert client.put_count == len(stream) - len(set(stream if dialect != "responses" else stream[:1]))
    assert (client.body, answer.attempt.meter.output_text_bytes) == (b"".join(stream), len(stream))


@pytest.mark.parametrize("is_joined", [False, True], ids=["where it arrives", "several at once"])
async def test_response_when_ended_after_repeated_events_then_the_error_has_the_next_number(is_joined):
    stream = [told(text, 5 + at) for at, text in enumerate(["a", "b", "c", "BOOM"])]
    pieces = [stream[0], b"".join(stream[1:])] if is_joined else stream
    client, _ = await relayed(pieces, None, dialect="responses", scanner=FakeScanner())
    assert client.body.startswith(b"".join(stream[:3]))
    assert b'"sequence_number":8' in client.body[len(b"".join(stream[:3])) :]


async def test_response_when_a_repeated_event_is_masked_then_its_data_is_found_behind_its_name():
    words = ["a", "see KE", "Y-123", "45678", " end"]
    stream = [told(text, at) for at, text in enumerate(words)]
    client, _ = await relayed(stream, None, dialect="responses", scanner=FakeScanner())
    said = [json.loads(line[6:])["delta"] for line in client.body.splitlines() if line.startswith(b"data: ")]
    assert "".join(said) == "asee KEY-**** end"


def test_stream_when_no_chunk_repeats_another_then_they_are_compared_no_more():
    reading = Reading(answer_to(Client(), Reply([])), 1 << 20)
    unlike = [usual("a", index) for index in range(20)]
    for event in [*unlike, unlike[-1]]:
        (read,) = reading.events(event)
        reading.admit(read)
    assert read.text == ""
    (read,) = reading.events(unlike[15])
    assert read.text == "a"


async def test_stream_when_a_chunk_that_repeats_is_dropped_then_its_choice_is_ended_as_if_it_were_decoded():
    """A choice beyond those that are followed begins, for the client, with the dropped chunk."""
    followed = MOST_CHOICES
    stream = b"".join(usual("a", index) * 2 for index in range(followed)) + usual("a", followed) + usual("b", followed)
    client, _ = await relayed([stream], Allowed(2 * followed + 1))
    assert client.body.count(b'"finish_reason":"length"') == followed + 1


def test_stream_when_a_chunk_that_repeats_is_too_large_then_it_is_not_read():
    answer = answer_to(Client(), Reply([]))
    reading = Reading(answer, 400)
    large = usual("b" * 500)
    for piece in (usual("a"), usual("c") + large + usual("d"), large):
        for read in reading.events(piece):
            reading.admit(read)
    assert answer.attempt.meter.output_text_bytes == len("acd") + 2 * len(large)


def test_stream_when_the_end_of_a_large_event_looks_like_a_repetition_then_it_is_none():
    answer = answer_to(Client(), Reply([]))
    reading = Reading(answer, 400)
    begin = b"data: " + b"b" * 2000 + b"\n"
    for piece in (usual("a"), begin, usual("c")):
        for read in reading.events(piece):
            reading.admit(read)
    assert answer.attempt.meter.output_text_bytes == len("a") + len(begin) + len(usual("c"))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(EVENTS, max_size=30),
    st.one_of(st.none(), st.integers(0, 40)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2),
    st.lists(st.integers(1, 4), max_size=40),
)
async def test_stream_when_events_are_sent_where_they_arrive_then_the_same_as_when_each_is_read(
    events, text_bytes, strip, is_scanned, is_slow, joins, together
):
    """Joined: what arrives behind an event that is not sent at once comes to the reader together with it.

    `together`: how many events a piece has.
    """
    results = []
    counts = chain(together, repeat(1))
    events = iter(events)
    events = [*iter(lambda: b"".join(islice(events, next(counts))), b"")]
    for offers in (True, False):
        reply = Reply([*events, DONE, usual("late")], (STREAM,), offers=offers, joins=joins)
        allowance = None if text_bytes is None else Allowed(text_bytes, 7)
        scanner = FakeScanner() if is_scanned else None
        client, answer = await relayed(
            (), allowance, client=Client(is_slow=is_slow), reply=reply, strip_usage=strip, scanner=scanner
        )
        meter = answer.attempt.meter
        if meter.cut or meter.withheld:
            meter.response_bytes = 0  # more of what is dropped may have been read
        found = None if scanner is None else (scanner.seen, scanner.characters)
        results.append((client.body, meter, found, reply.closed, allowance and allowance.asked))
    assert results[0] == results[1]


async def test_stream_when_chunks_repeat_then_their_events_leave_without_waking_the_reader():
    words = "a b c d e f".split()
    client, answer = await relayed([*map(usual, words), DONE], None)
    assert client.put_count == len(words) - 1
    assert client.pieces == [*map(usual, words), DONE]
    assert answer.attempt.meter.response_bytes == len(client.body)


async def test_stream_when_several_chunks_come_together_then_they_leave_without_waking_the_reader():
    pieces = [usual("a"), usual("b") + usual("c"), usual("d") + usual("e") + usual("f")]
    client, answer = await relayed([*pieces, DONE], None)
    assert client.put_count == 2
    assert client.pieces == [*pieces, DONE]
    assert answer.attempt.meter.response_bytes == len(client.body)
    assert answer.attempt.meter.output_text_bytes == len("abcdef")


async def test_stream_when_chunks_come_together_with_another_then_the_reader_goes_on_behind_them():
    half = b"data: {\n"
    pieces = [usual("a"), usual("b") + usual("c") + DONE[:9], DONE[9:] + half]
    client, answer = await relayed(pieces, None)
    assert (client.put_count, client.body) == (1, b"".join(pieces))
    assert answer.attempt.meter.output_text_bytes == len("abc")


async def test_stream_when_many_chunks_come_together_then_others_get_their_turn_between_them():
    """What is sent where it arrives keeps the event loop: no more than a single chunk may."""
    words = ["x" * 300] * 12
    pieces = [usual("a"), b"".join(map(usual, words)), DONE]
    client, answer = await relayed(pieces, None)
    assert client.pieces[1] == b"".join(map(usual, words[:4]))
    assert client.body == b"".join(pieces)
    assert answer.attempt.meter.output_text_bytes == len("a") + 12 * 300


async def test_stream_when_the_client_reads_slowly_then_every_other_event_waits_for_it():
    """What is put although the client has not read enough fails in `Client.put`."""
    words = "a b c d e f g".split()
    client, _ = await relayed([*map(usual, words), DONE], None, client=Client(is_slow=True))
    assert (client.put_count, client.body) == (3, b"".join(map(usual, words)) + DONE)


async def test_stream_when_an_event_sent_where_it_arrives_is_captured_then_it_is_kept():
    capture = Capture(limit_bytes=1 << 20)
    client, _ = await relayed([*map(usual, "abc"), DONE], None, capture=capture)
    assert client.put_count == 2
    assert bytes(capture.response) == client.body


async def test_stream_when_a_repeated_event_is_blocked_then_nothing_behind_its_finding_leaves():
    reply = Reply([usual("oh"), usual("so"), usual(" be it BOOM"), usual("late")], (STREAM,), joins=1)
    client, answer = await relayed((), None, reply=reply, scanner=(scanner := FakeScanner()))
    assert b"BOOM" not in client.body
    assert b"late" not in client.body
    assert client.body.startswith(usual("oh") + usual("so") + usual(" be it "))
    meter = answer.attempt.meter
    assert (meter.withheld, meter.events, len(scanner.seen), reply.closed) == (True, 3, 1, True)


async def test_stream_when_one_of_several_chunks_is_blocked_then_nothing_behind_its_finding_leaves():
    together = usual("so") + usual(" be it BOOM") + usual("late")
    reply = Reply([usual("oh"), together], (STREAM,))
    client, answer = await relayed((), None, reply=reply, scanner=FakeScanner())
    assert b"BOOM" not in client.body
    assert b"late" not in client.body
    assert client.body.startswith(usual("oh") + usual("so") + usual(" be it "))
    assert (answer.attempt.meter.withheld, answer.attempt.meter.events) == (True, 3)


async def test_stream_when_one_of_several_chunks_is_not_covered_then_it_is_metered_once():
    reply = Reply([usual("a"), usual("b") + usual("c") + usual("d"), DONE], (STREAM,))
    client, answer = await relayed((), allowance := Allowed(2, 9), reply=reply)
    assert (client.body, allowance.asked) == (b"".join(map(usual, "abcd")) + DONE, [3])
    assert (answer.attempt.meter.output_text_bytes, answer.attempt.meter.events) == (4, 5)
    assert answer.attempt.meter.response_bytes == len(client.body)


async def test_stream_when_a_repeated_event_is_not_covered_then_what_came_with_it_follows_it():
    reply = Reply([*map(usual, "abcd"), DONE], (STREAM,), joins=1)
    client, answer = await relayed((), allowance := Allowed(2, 9), reply=reply)
    assert (client.body, allowance.asked) == (b"".join(map(usual, "abcd")) + DONE, [3])
    assert answer.attempt.meter.output_text_bytes == 4


async def test_stream_when_an_event_is_half_there_then_a_repetition_within_it_is_none():
    pieces = [usual("a"), usual("b"), b"data: {\n", usual("c"), usual("d"), DONE]
    client, answer = await relayed(pieces, None)
    assert (client.put_count, client.body) == (1, b"".join(pieces))
    assert answer.attempt.meter.output_text_bytes == len("abd")


async def test_stream_when_encoded_then_bytes_that_look_like_an_event_are_not_sent_as_they_are():
    """A block of deflate can hold its bytes as they are."""
    packer = zlib.compressobj(0)
    pieces = []
    for event in [*map(usual, "abc"), DONE]:
        packed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
        at = packed.index(event)
        pieces += [packed[:at], event, packed[at + len(event) :]]
    headers = (STREAM, (b"Content-Encoding", b"deflate"))
    client, _ = await relayed([*pieces, packer.flush()], None, headers)
    assert (client.put_count, client.body) == (0, b"".join(map(usual, "abc")) + DONE)


async def test_stream_when_the_client_leaves_while_an_event_is_sent_where_it_arrives_then_its_reader_is_told():
    scanner = FakeScanner()
    with pytest.raises(ClientDisconnected):
        await relayed([*map(usual, "abcd")], None, client=Client(leaves_after=2 * len(usual("a"))), scanner=scanner)
    assert scanner.characters == 2  # what was scanned until then is recorded all the same


async def test_stream_when_the_scanner_fails_on_an_event_sent_where_it_arrives_then_nothing_more_leaves():
    class Broken(FakeScanner):
        def channel(self, kind="text"):
            channel = super().channel(kind)
            take = channel.take
            channel.take = lambda said: take(said) if said != "bad" else 1 // 0
            return channel

    client = Client()
    with pytest.raises(ZeroDivisionError):
        await relayed([*map(usual, ["a", "b", "bad", "c"])], None, client=client, scanner=Broken())
    assert client.body == usual("a") + usual("b")


HELD = SECRET.encode()
ASIDES = {
    "comment": (b": %b\n\n" + chunk("a"), "comment"),
    "comment within an event": (b":%b\r\n" + chunk("a"), "comment"),
    "id": (b"id: %b\n" + chunk("a"), "comment"),
    "name": (b"event: %b\n" + chunk("a"), "comment"),
    "unknown field": (b"Data: %b\n\n" + chunk("a"), "comment"),
    "a document without a field": (b'{"choices":[{"message":{"content":"%b"}}]}', "comment"),
    "member of a delta": (chunk("a", b',"%b":1').replace(b"}]", b"}]"), "name"),
    "only member of a delta": (b'data: {"choices":[{"index":0,"delta":{"%b":"x"}}]}\n\n', "name"),
    "member of an object": (b'data: {"choices":[],"x":{"%b":null}}\n\n', "name"),
}


@pytest.mark.parametrize("name", ASIDES)
async def test_secret_when_it_is_no_value_then_it_is_masked_torn_anywhere(name):
    place = ASIDES[name][1]
    secret, mask = (HELD, MASK.encode()) if place == "comment" else (b"X" * 8 + HELD, b"X" * 8 + MASK.encode())
    torn = ASIDES[name][0] % secret + b"\n\n" + DONE
    for at in range(0, len(torn), 3):
        scanner = FakeScanner()
        client, _ = await relayed(cuts(torn, [at]), None, scanner=scanner)
        assert HELD not in client.body and mask in client.body, at
        assert scanner.seen == [(place, "key")]


async def test_secret_when_more_comments_than_an_event_may_hold_precede_it_then_it_is_masked():
    flood = b":\n" * 2000
    client, _ = await relayed([flood + chunk(SECRET) + DONE], None, scanner=FakeScanner(), event_bytes=1024)
    assert client.body == flood + chunk(MASK) + DONE


@pytest.mark.parametrize("unit", [b"\n", b"\r\n", b":x\n"], ids=repr)
async def test_blank_lines_and_comments_when_there_are_many_then_they_pass_in_large_pieces(unit):
    """Each used to be metered and scanned as an event is: ten megabytes of line feeds took two minutes."""
    flood = unit * 20_000
    answer = answer_to(Client(), Reply([]), scanner=FakeScanner())
    reading = Reading(answer, 1 << 20)
    found = list(reading.events(chunk("a") + flood + chunk("b")))
    first, *between, last = [len(read.cut) for read in found]
    assert (first, sum(between), last) == (len(chunk("a")), len(flood), len(chunk("b")))
    assert len(between) <= 1 + len(flood) // 32_000
    assert b"".join(map(reading.admit, found)) == chunk("a") + flood + chunk("b")


@pytest.mark.parametrize("name", ASIDES)
async def test_forbidden_text_when_it_is_no_value_then_the_stream_ends_before_it(name):
    client, answer = await relayed(
        [chunk("first") + ASIDES[name][0] % (b"B" + b"x" * 20 + b"BOOM"), DONE], None, scanner=FakeScanner()
    )
    assert b"BOOM" not in client.body and b"first" in client.body
    assert answer.attempt.meter.withheld
    assert b"policy_violation" in client.body


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lines", "carriage returns"])
async def test_stream_when_a_piece_has_many_events_then_they_are_cut_some_at_a_time(end, monkeypatch):
    sizes, feed = [], EventCutter.feed
    monkeypatch.setattr(EventCutter, "feed", lambda self, data: sizes.append(len(data)) or feed(self, data))
    data = b"".join(usual(f"word {number}") for number in range(3000)).replace(b"\n\n", end)
    client, answer = await relayed([data + DONE], None)
    assert client.body == data + DONE
    assert max(sizes) < 34_000 < len(data) / 5
    assert answer.attempt.meter.output_text_bytes == sum(len(f"word {number}") for number in range(3000))
