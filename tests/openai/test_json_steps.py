import json
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai import json_steps, long_strings
from proxy.openai.documents import dump_exact, load, load_exact
from proxy.openai.json_steps import LARGE_BYTES, Steps, Unreadable, dissolve, dump_in_steps, has_more, is_slow, read

PIECES = ("a", "b,", '\\"', "}", "[{", "\\\\", "x" * 30, ",,", "\\u00e9", "},{", "é")
MESSAGE = {"role": "user", "content": 'He said "},{", and left.'}


@pytest.fixture(params=[4, 10, 40, 200])
def step(request, monkeypatch):
    monkeypatch.setattr(json_steps, "_STEP", request.param)


def texts(seed, count):
    """Texts of JSON, every second one with something wrong or moved in it."""
    chance = random.Random(seed)

    def text():
        return '"' + "".join(chance.choices(PIECES, k=chance.randrange(4))) + '"'

    def value(level):
        kind, blank = chance.randrange(9 if level < 6 else 5), chance.choice(("", "", " ", "\n"))
        if kind < 3:
            return text()
        if kind < 5:
            return chance.choice(("true", "null", "1.5e3", "{}", "[]", "12", "-123456789"))
        values = [value(level + 1) for _ in range(chance.randrange(7))]
        if kind % 2:
            return f"[{blank}" + f"{blank},{blank}".join(values) + f"{blank}]"
        return "{" + blank + f"{blank},{blank}".join(f"{text()}:{blank}{each}" for each in values) + blank + "}"

    for number in range(count):
        made = value(0)
        if number % 2:
            at = chance.randrange(len(made))
            made = made[:at] + chance.choice((*',:{}[]"\\1 ', "")) + made[at + chance.randrange(2) :]
        yield made.encode()


def outcome(work, body):
    try:
        return json.dumps(work(body))
    except ValueError:
        return None


def test_text_when_read_in_steps_then_it_says_the_same_and_the_same_is_refused(step):
    for body in texts(7, 1500):
        expected = outcome(load, body)
        assert outcome(lambda body: Steps(body, load, 128).load(), body) == expected, body


def test_numbers_of_any_size_when_read_in_steps_then_they_stay(step):
    body = b'{"a":[1,2,123456789012345678901234567890],"b":{"c":{}}}'
    assert Steps(body, load_exact, 128).load() == json.loads(body)


@pytest.mark.parametrize(
    ("body", "repeats"),
    [
        (b'{"a":1,"b":2,"cccccccc":3,"dddddddd":[4],"a":5}', True),
        (b'{"a":1,"b":2,"cccccccc":3,"dddddddd":[{"a":4}],"e":5}', False),
    ],
    ids=["twice", "once"],
)
def test_key_when_it_stands_in_two_pieces_then_that_is_told(step, body, repeats):
    seen = []
    steps = Steps(body, lambda piece: load_exact(piece, lambda pairs: seen.append(pairs) or dict(pairs)), 128)
    assert steps.load() == json.loads(body)
    assert (steps.repeats_key or any(len(dict(pairs)) < len(pairs) for pairs in seen)) is repeats


def test_object_when_an_open_member_repeats_an_earlier_key_then_its_rest_is_found(monkeypatch):
    monkeypatch.setattr(json_steps, "_STEP", 16)
    body = b'{"a":[0],"b":[0],"a":[1,2,3,4,5,6,7,8,9,10,11,12,13,14]}'
    assert Steps(body, load, 128).load() == json.loads(body)


@pytest.mark.parametrize("before", [b"[", b"[1,"], ids=["without a comma", "with one"])
def test_nesting_when_deeper_than_allowed_then_it_is_refused(before):
    with pytest.raises(Unreadable, match="nested too deeply"):
        Steps(before + b"[" * 200 + b"]" * 200 + b"]", load, 128).load()


def test_messages_when_there_are_many_then_no_piece_is_long():
    body = orjson.dumps({"model": "m", "messages": [MESSAGE] * 20_000, "stream": True})
    sizes = []
    assert is_slow(body)
    document = Steps(body, lambda piece: sizes.append(len(piece)) or load(piece), 128).load()
    assert document == orjson.loads(body)
    assert max(sizes) < 150_000
    assert sum(sizes) < 1.5 * len(body)


@pytest.mark.parametrize("quote", ["", '"', "\\"], ids=["plain", "quotes", "backslashes"])
def test_text_when_it_is_one_long_string_then_it_is_passed_over(quote):
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": f"a, {quote}" * 100_000}], "n": 1})
    assert is_slow(body)
    assert read(body, 128) == orjson.loads(body)


@pytest.mark.parametrize("size", [200_000, 900_000])
def test_texts_when_they_are_a_few_large_ones_then_no_piece_is_long(size, monkeypatch):
    body = orjson.dumps({"messages": [{"role": "user", "content": "words " * (size // 6)} for _ in range(20)]})
    sizes = []
    monkeypatch.setattr(long_strings, "load", lambda piece: sizes.append(len(piece)) or load(piece))
    monkeypatch.setattr(long_strings.load_parted, "__defaults__", (long_strings.load,))
    assert read(body, 128) == orjson.loads(body)
    assert max(sizes) < 600_000


@pytest.mark.parametrize("end", [b"", b'"', b'"}', b'"}]}]', b'"}]},'], ids=str)
def test_text_when_it_ends_too_soon_or_goes_on_then_it_is_refused(end):
    body = b'{"messages":[{"content":"' + b"a, \\n" * 100_000 + end
    with pytest.raises(Unreadable):
        read(body, 128)


def test_document_when_few_elements_or_few_bytes_then_it_is_read_at_once():
    assert not is_slow(b"[" + b"{}," * (LARGE_BYTES // 4) + b"{}]")
    assert not is_slow(b'"' + b"a" * LARGE_BYTES + b'"')


def test_document_when_dissolved_then_nothing_is_left():
    messages = [MESSAGE] * 5000
    deep, wide = [[["a", {"b": [1]}]] for _ in range(3000)], {str(number): [number] for number in range(3000)}
    document = {"messages": messages, "model": "m", "deep": deep, "wide": wide}
    inner = deep[0][0], deep[0][0][1], wide["2999"]
    dissolve("text")
    dissolve(document)
    assert (document, messages, deep, wide, inner) == ({}, [], [], {}, ([], {}, []))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.integers(1, 9),
)
def test_document_when_dumped_in_steps_then_it_is_what_one_call_writes(document, step):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_steps, "_STEP", step)
        assert dump_in_steps(document) == dump_exact(document)


def test_structurals_when_counted_in_steps_then_each_counts_once(monkeypatch):
    monkeypatch.setattr(json_steps, "_COUNTED", 7)
    body = b'[{"a":1,"b":[2,3]},{}]' * 9
    count = body.count(b",") + body.count(b"[") + body.count(b"{")
    assert has_more(body, count - 1)
    assert not has_more(body, count)


@pytest.mark.parametrize("text", ["é", "\ud83d"], ids=["text", "half a pair"])
def test_document_when_dumped_in_steps_then_as_at_once(text):
    document = {"a": [text, 123456789012345678901234567890, {"b": None}]}
    assert json.loads(dump_in_steps(document)) == document


def test_container_when_it_would_take_too_much_memory_then_it_is_not_decoded(monkeypatch):
    monkeypatch.setattr(json_steps, "_MOST_STRUCTURALS", 1000)
    assert json_steps.read_container(b"[" + b"1," * 999 + b"1]") == [1] * 1000
    assert json_steps.read_container(b"[" + b"1," * 1000 + b"1]") is None
    assert json_steps.read_container(json.dumps(["x" * 5000]).encode()) == ["x" * 5000]
