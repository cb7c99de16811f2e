"""What is done in pieces has the result of one call."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.openai import pieces
from proxy.openai.pieces import contains, cut, decoded, encoded, joined_by, utf8_len

SAME = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 7)


@SAME
@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_text_is_encoded_and_measured_as_in_one_call(small: None, text: str) -> None:
    assert utf8_len(text) == len(text.encode("utf-8", "surrogatepass"))
    assert encoded(text, "surrogatepass") == text.encode("utf-8", "surrogatepass")
    assert encoded(text, "replace") == text.encode("utf-8", "replace")


@SAME
@given(st.text(max_size=60))
def test_text_is_decoded_as_in_one_call(small: None, text: str) -> None:
    assert decoded(text.encode()) == decoded(bytearray(text.encode())) == text


@SAME
@given(st.lists(st.text(max_size=20), min_size=1, max_size=9), st.integers(1, 4))
def test_texts_are_joined_as_in_one_call(small: None, texts: list[str], together: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pieces, "_TOGETHER", together)
        assert joined_by("--", texts) == "--".join(texts)


@SAME
@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_bytes_are_cut_into_what_they_are(small: None, data: bytes, at: int, stop: int) -> None:
    found = cut(data, at, min(stop, len(data)))
    assert b"".join(found) == data[at:stop]
    assert all(0 < len(piece) <= 7 for piece in found)


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3", b"\xed\xa0\xbd"])
def test_text_when_it_is_not_utf8_then_it_is_refused(small: None, wrong: bytes) -> None:
    for data in (wrong, b"in the first" + wrong + b"piece of them", b"at the end of some" + wrong):
        with pytest.raises(UnicodeDecodeError):
            decoded(data)


def test_text_when_it_cannot_be_encoded_then_it_is_refused(small: None) -> None:
    with pytest.raises(UnicodeEncodeError):
        encoded("long enough for pieces \ud83d")


@SAME
@given(st.binary(max_size=40), st.integers(0, 40), st.integers(1, 9))
def test_contains_finds_what_is_there_wherever_pieces_end(small: None, data: bytes, at: int, size: int) -> None:
    sign = data[at : at + size] or b"sign"
    assert contains(data, sign) == (sign in data)
    assert contains(data, sign + b"!") == (sign + b"!" in data)


def test_text_when_it_is_large_then_no_call_is_for_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    monkeypatch.setattr(pieces, "give_way", lambda: turns.append(1))
    text = "ж" * 10 * pieces.PIECE
    assert encoded(text) == text.encode()
    assert len(turns) == 10
    assert not contains(encoded(text), b"{")
    assert len(turns) == 40
    assert encoded("a" * 10 * pieces.PIECE) == b"a" * 10 * pieces.PIECE
    assert len(turns) == 50
