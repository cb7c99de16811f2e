"""Looking at forms while they pass."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.multipart import MAX_PARTS, MAX_VALUE_BYTES, FilePart, FormFacts, MultipartObserver

TYPE = b'multipart/form-data; charset=utf-8; boundary="a b:c"'
LINE = b"--a b:c"


def field(name: str, value: bytes) -> bytes:
    return LINE + b'\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file(name: str, filename: bytes, content: bytes) -> bytes:
    return (
        LINE
        + b'\r\ncontent-disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: audio/mpeg\r\n\r\n%b\r\n'
        % (name.encode(), filename, content)
    )


def observe(body: bytes, cuts: list[int] | None = None, content_type: bytes = TYPE) -> FormFacts:
    observer = MultipartObserver(content_type)
    bounds = [0, *sorted(cuts or []), len(body)]
    for start, stop in itertools.pairwise(bounds):
        observer.feed(body[start:stop])
    return observer.facts()


CONTENT = b"\r\n--a b\r\n--a b:\r\n-\r\n--a b:cd\r\n--a b:c-x" * 3
BODY = (
    b"preamble is ignored\r\n"
    + field("model", b"whisper-1")
    + file("file", rb"a \"b\".mp3", CONTENT)
    + LINE
    + b' \t\r\nContent-Disposition: form-data; name=prompt; x="filename=y"\r\n\r\nsay \xff\r\n'
    + field("empty", b"")
    + LINE
    + b"--\r\nepilogue"
    + LINE
)
FACTS = FormFacts(
    {"model": "whisper-1", "prompt": "say \ufffd", "empty": ""},
    {"model": 9, "prompt": 5, "empty": 0},
    (FilePart("file", 11, len(CONTENT)),),
    False,
)


def test_facts_when_the_form_is_cut_anywhere_then_the_same() -> None:
    for cut in range(len(BODY)):
        assert observe(BODY, [cut]) == FACTS


def test_facts_when_the_form_comes_byte_by_byte_then_the_same() -> None:
    assert observe(BODY, list(range(len(BODY)))) == FACTS


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.text(alphabet="abcé", min_size=1, max_size=4),
            st.lists(st.sampled_from([b"\r", b"\n", b"--", b"--a b:c", b"\r\n--a b", b"x", b"-"]), max_size=8),
        ),
        max_size=5,
    ),
    st.lists(st.integers(0, 400)),
)
def test_facts_when_content_resembles_boundaries_then_sizes_are_right(parts, cuts) -> None:
    body, fields, files = b"", {}, []
    for is_file, name, pieces in parts:
        content = b"".join(pieces)
        if b"\r\n" + LINE in b"\r\n" + content:
            content = content.replace(LINE, b"")
        if is_file:
            body += file(name, b"n", content)
            files.append(FilePart(name, 1, len(content)))
        else:
            body += field(name, content)
            fields[name] = content.decode()
    facts = observe(body + LINE + b"--", [min(cut, len(body)) for cut in cuts])
    assert facts.fields == fields
    assert facts.files == tuple(files)
    assert facts.malformed is False


@given(st.binary(max_size=200), st.binary(max_size=60), st.lists(st.integers(0, 200)))
def test_feed_when_the_input_is_anything_then_it_never_raises(body: bytes, content_type: bytes, cuts) -> None:
    assert observe(body, cuts, content_type).malformed or b"boundary" in content_type.lower()
    observe(LINE + body, [min(cut, len(body)) for cut in cuts])


@pytest.mark.parametrize(
    "content_type",
    [b"", b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=" + b"x" * 201],
)
def test_facts_when_there_is_no_usable_boundary_then_malformed(content_type: bytes) -> None:
    assert observe(BODY, content_type=content_type) == FormFacts({}, {}, (), True)


def test_facts_when_the_form_is_cut_off_then_malformed_but_what_came_is_told() -> None:
    facts = observe(field("model", b"m") + file("file", b"n", b"content"))
    assert facts == FormFacts({"model": "m"}, {"model": 1}, (), True)


def test_facts_when_a_head_never_ends_then_malformed_and_nothing_is_held() -> None:
    observer = MultipartObserver(TYPE)
    observer.feed(LINE + b"\r\n" + b"x" * 20_000)
    observer.feed(b"\r\n\r\n")
    assert observer.facts().malformed


def test_facts_when_a_value_is_large_then_only_its_size_is_kept() -> None:
    body = field("at", b"x" * MAX_VALUE_BYTES) + field("over", b"x" * (MAX_VALUE_BYTES + 1)) + LINE + b"--"
    facts = observe(body, [100, 5000])
    assert set(facts.fields) == {"at"}
    assert facts.sizes["over"] == MAX_VALUE_BYTES + 1


def test_facts_when_there_are_very_many_parts_then_bounded() -> None:
    body = b"".join(field(f"f{n}", b"v") + file("file", b"", b"c") for n in range(MAX_PARTS + 9))
    facts = observe(body + field("f0", b"again") + LINE + b"--")
    assert (len(facts.fields), len(facts.files), facts.sizes["f0"]) == (MAX_PARTS, MAX_PARTS, 6)
    assert facts.files[0].filename_length == 0


def test_facts_when_a_part_has_no_name_then_the_name_is_empty() -> None:
    assert observe(LINE + b"\r\nX: y\r\n\r\nv\r\n" + LINE + b"--").fields == {"": "v"}


def test_facts_when_boundary_padding_is_endless_then_it_is_content() -> None:
    body = field("a", b"x\r\n" + LINE + b" " * 100 + b"\r\n") + LINE + b"--"
    assert observe(body, list(range(len(body)))).sizes["a"] > 100
