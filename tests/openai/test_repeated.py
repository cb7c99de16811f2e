"""What a frame says of a chunk is what the decoder and the readers of a decoded chunk say."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.openai.channels import read_usual
from proxy.openai.documents import load_object
from proxy.openai.repeated import frame_of
from proxy.openai.stream_usage import strip_usage

START = b'{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{'
USUAL = START + b'"content":"%b"},"logprobs":null,"finish_reason":null}]'
CHUNKS = {
    "plain": USUAL + b"}",
    "usage": USUAL + b',"usage":null}',
    "obfuscation": USUAL + b',"usage":null,"obfuscation":"aB3"}',
    "usage last": USUAL + b',"obfuscation":"aB3","usage":null}',
    "usage first": b'{"usage":null,' + USUAL[1:] + b',"obfuscation":"x"}',
    "role": START + b'"role":"assistant","reasoning_content":"%b","content":null},"finish_reason":""}]}',
    "spaces": (USUAL + b',"usage":null}').replace(b":", b" : ").replace(b",", b", "),
    "escaped key": USUAL + b',"us\\u0061ge":null,"usage":null}',
    "nested usage": USUAL[:-2] + b',"usage":null}],"usage":null}',
    "surrogate in the id": USUAL.replace(b"c1", b"\\ud83d") + b',"usage":null}',
}
UNFIT = {
    "overwriting": START + b'"content":"a","content":"%b"}}]}',
    "overwritten": START + b'"content":"%b","content":"b"}}]}',
    "usage": USUAL + b',"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    "finish": USUAL.replace(b'"finish_reason":null', b'"finish_reason":"stop"') + b"}",
    "two texts": START + b'"content":"%b","refusal":"no"}}]}',
    "two choices": USUAL[:-1] + b',{"index":1,"delta":{"content":"b"}}]}',
    "error": USUAL + b',"error":{"code":"x"}}',
    "label": START + b'"tokens":"%b"}}]}',
    "uncounted": START + b'"thinking":"%b"}}]}',
    "empty": (USUAL + b"}").replace(b"%b", b""),
    "escaped name": START.replace(b"delta", b"d\\u0065lta") + b'"c\\u006fntent":"%b"}}]}',
    "elsewhere": START.replace(b'"c1"', b'"c1","content":"x"').replace(b'"content"', b'"model":{},"id2"') + b"}}]}",
}
PIECES = st.sampled_from(
    [
        b"a",
        b" the",
        b"\\n",
        b'\\"',
        b"\\\\",
        b"\\u00e9",
        b"\\ud83d\\udc4b",
        "\u00e9\u4e16\U0001f44b".encode(),
        b"\\/",
        b"usage",
    ]
)
BROKEN = st.sampled_from(
    [
        b'"',
        b"\\",
        b"\\ud83d",
        b"\\x",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff",
        b"\xc3",
        b'"}',
        b'","content":"',
        b',"usage":null',
    ]
)
TEXTS = st.lists(PIECES, min_size=1, max_size=5).map(b"".join)


def event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def document_of(chunk: bytes):
    document = load_object(chunk[6:-2])
    assert document is not None
    return document


def frame(chunk: bytes, strips: bool = True):
    return frame_of(chunk, document_of(chunk), "chat", strips_usage=strips)


def check(made, first: bytes, other: bytes) -> str:
    """Compare what a frame says of another event with what reading it says."""
    text = made.text_of(other)
    if text:
        document, model = document_of(other), document_of(first)
        assert read_usual(document) == (made.key, text)
        model["choices"][0]["delta"][made.key[2]] = text
        hidden = document.get("obfuscation")
        assert hidden is None or hidden.isalnum()
        assert document == (model if hidden is None else model | {"obfuscation": hidden})
        assert made.sent(other) == event(strip_usage(other[6:-2], document))
    return text


@pytest.mark.parametrize("name", CHUNKS)
@given(TEXTS, TEXTS, st.sampled_from([b"aB3", b"Zz09Yx", b"x"]))
@example(b"a", b"usage", b"x")
@example(b"\\u0061", b"\\u0022usage\\u0022:null", b"x")
def test_chunk_when_another_has_only_another_text_then_that_is_read(name, text, other, hidden):
    first = event(CHUNKS[name] % text)
    made = frame(first)
    repeated = event((CHUNKS[name] % other).replace(b'"aB3"', b'"%b"' % hidden))
    said = check(made, first, repeated)
    assert said == json.loads(b'"%b"' % other)
    assert frame(first, strips=False).sent(repeated) == repeated


@pytest.mark.parametrize("name", CHUNKS)
@given(TEXTS, st.lists(st.one_of(PIECES, BROKEN), max_size=5).map(b"".join), st.binary(max_size=2))
def test_chunk_when_its_text_is_anything_then_it_is_read_like_the_decoder_does_or_not_at_all(name, text, other, end):
    first = event(CHUNKS[name] % text)
    check(frame(first), first, event(CHUNKS[name] % (other + end)))


@pytest.mark.parametrize("name", CHUNKS)
@given(st.data())
def test_chunk_when_any_bytes_of_it_change_then_it_is_read_like_the_decoder_does_or_not_at_all(name, data):
    first = event(CHUNKS[name] % b"some text")
    at = data.draw(st.integers(0, len(first)))
    size = data.draw(st.integers(0, 40))
    new = data.draw(st.one_of(BROKEN, PIECES, st.binary(max_size=3)))
    check(frame(first), first, first[:at] + new + first[at + size :])


def test_chunk_when_it_is_cut_short_anywhere_then_it_is_no_repetition():
    for name, chunk in CHUNKS.items():
        first = event(chunk % b"ab")
        made = frame(first)
        for at in range(len(first)):
            for size in range(1, len(first) - at):
                check(made, first, first[:at] + first[at + size :])
        assert made.text_of(first) == "ab", name


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n", b" \n", b"\n\n"], ids=repr)
@pytest.mark.parametrize("name", CHUNKS)
def test_chunk_when_a_line_ends_behind_its_text_then_it_is_no_repetition(name, end):
    # Between members of an object JSON allows line ends, but in a stream the event's data would end there.
    made = frame(event(CHUNKS[name] % b"ab"))
    for other in (CHUNKS[name].replace(b'%b"', b'cd"%b'), CHUNKS[name].replace(b'"%b"', b'%b"cd"')):
        assert load_object(other % end) is not None
        assert made.text_of(event(other % end)) == ""


@pytest.mark.parametrize("name", UNFIT)
def test_chunk_when_more_than_its_text_counts_then_it_has_no_frame(name):
    assert frame(event(UNFIT[name].replace(b"%b", b"ab"))) is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n\r\n"])
def test_chunk_when_its_frame_is_not_the_usual_one_then_it_is_not_used(end):
    data = CHUNKS["plain"] % b"ab"
    assert frame_of(b"data: " + data + end, load_object(data), "chat", strips_usage=True) is None
    assert frame_of(event(data.replace(b'{"id"', b'{\r"id"')), load_object(data), "chat", strips_usage=True) is None


def test_chunk_when_its_usage_cannot_be_removed_then_it_is_sent_as_it_is():
    # Spelled with an escape, the member is not found by its name.
    chunk = CHUNKS["plain"].replace(b"}]}", b'}],"us\\u0061ge":null}')
    made = frame(event(chunk % b"ab"))
    assert made.sent(event(chunk % b"cd")) == event(chunk % b"cd")


DELTA = b'{"type":"response.output_text.delta","sequence_number":%b,"item_id":"m1","delta":"%b"%b}'
CALLS = START + b'"tool_calls":[{"index":1%b,"function":{"arguments":"%b"}}]},"finish_reason":null}]}'


def numbered(number: bytes = b"7", text: bytes = b"a", more: bytes = b"", name: bytes = b"event: x\n"):
    return name + event(DELTA % (number, text, more))


@pytest.mark.parametrize("name", [b"event: x\n", b""], ids=["named", "unnamed"])
def test_response_when_another_event_has_another_number_then_its_text_is_read(name):
    made = frame_of(numbered(name=name), load_object(DELTA % (b"7", b"a", b"")), "responses", strips_usage=False)
    assert (made.key, made.path, made.call) == (("output", "m1", "response.output_text"), ("delta",), None)
    for number in (b"0", b"12", b"9" * 15):
        assert (made.text_of(numbered(number, b"b\\n", name=name)), made.number) == ("b\n", number)


@pytest.mark.parametrize("number", [b"", b"-1", b"07", b"1.5", b"1e2", b"9" * 16, b'"7"', b" 7", b"7 "])
def test_response_when_the_number_is_not_a_plain_one_then_it_is_no_repetition(number):
    made = frame_of(numbered(), load_object(DELTA % (b"7", b"a", b"")), "responses", strips_usage=False)
    assert made.text_of(numbered(number)) == ""


@pytest.mark.parametrize(
    ("data", "dialect"),
    [
        pytest.param(DELTA % (b"7", b"a", b',"error":1'), "responses", id="error"),
        pytest.param(DELTA % (b"7", b"a", b',"note":"b"'), "responses", id="another text"),
        pytest.param(DELTA.replace(b"output_text", b"audio") % (b"7", b"a", b""), "responses", id="sound"),
        pytest.param(b'{"sequence_number":7,"delta":"a"}', "responses", id="named by the event alone"),
        pytest.param((DELTA % (b"7", b"a", b"")), "chat", id="not of the dialect"),
        pytest.param(CHUNKS["plain"] % b"a", "responses", id="not of the dialect either"),
        pytest.param(CHUNKS["plain"] % b"a", "generic", id="unknown dialect"),
        pytest.param(CALLS % (b',"id":"c1"', b"a"), "chat", id="a call that may begin"),
        pytest.param(CALLS.replace(b'"index":1', b'"place":1') % (b"", b"a"), "chat", id="a call without its index"),
    ],
)
def test_event_when_it_says_more_or_is_counted_otherwise_then_it_has_no_frame(data, dialect):
    assert (
        frame_of(b"event: response.output_text.delta\n" + event(data), load_object(data), dialect, strips_usage=False)
        is None
    )


def test_call_when_its_arguments_go_on_then_they_are_read_with_the_place_of_the_call():
    first, second = (event(CALLS % (b"", text)) for text in (b"{", b'\\"a\\":'))
    made = frame_of(first, document_of(first), "chat", strips_usage=True)
    assert (made.call, made.path) == ((0, 1), ("choices", 0, "delta", "tool_calls", 0, "function", "arguments"))
    assert made.text_of(second) == '"a":'


def test_completion_when_another_chunk_has_only_another_text_then_that_is_read():
    data = b'{"id":"c1","choices":[{"text":"%b","index":0,"logprobs":null,"finish_reason":null}],"usage":null}'
    first = event(data % b"a")
    made = frame_of(first, document_of(first), "completions", strips_usage=True)
    assert made.text_of(event(data % b"b")) == "b"
    assert made.sent(event(data % b"b")) == event((data % b"b").replace(b',"usage":null', b""))
