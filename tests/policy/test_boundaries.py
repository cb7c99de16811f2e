"""Where a match may begin, by what stands before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy import boundaries
from proxy.policy.boundaries import BOUNDARIES, INSIDE_WORDS, next_place


@pytest.mark.parametrize(
    ("name", "before", "expected"),
    [
        ("anywhere", "a", True),
        ("word", "", True),
        ("word", "a", False),
        ("word", "_", True),
        ("word", " _", True),
        ("word", "\\n_", True),
        ("word", "a_", False),
        ("word", "__", False),
        ("word", "-", True),
        ("word", "键", True),
        ("word", "\\n", True),
        ("word", "x\\\\n", True),
        ("word", "%3D", True),
        ("word", "%253D", True),
        ("word", "\\u0022", True),
        ("word", "\x1b[0;32m", True),
        ("word", "n", False),
        ("alone", " ", True),
        ("alone", "-", True),
        ("alone", "\\n-", True),
        ("alone", "a-", False),
        ("alone", "a.", False),
        ("alone", "a", False),
        ("base64", "=", True),
        ("base64", "/", True),
        ("base64", " +", True),
        ("base64", "\\n+", True),
        ("base64", "a/", False),
        ("base64", "++", False),
        ("base64", "a", False),
        ("named", "DB_", True),
        ("named", "my", True),
        ("named", "admin", True),
        ("named", "primary_", False),
        ("named", "max", False),
        ("named", "gptMax", False),
        ("named", "by", False),
        ("named", "n_", False),
        ("named", "ADMIN_", True),
        ("named", "\\n", True),
        ("named", "PublicKey", False),
        ("named", "Next page ", False),
        ("named", "sign in by ", True),
        ("number", "1-", False),
        ("number", "a-", True),
        ("number", "1 ", True),
        ("number", "-", True),
        ("number", "1", False),
        ("number", "17,", True),
        ("number", "id,ssn\n17,", True),
        ("number", '"17,', True),
        ("number", "x\\n17,", True),
        ("number", "+17,", True),
        ("number", "1,234,", False),
        ("number", "3.1,", False),
        ("number", "1234567890,", False),
        ("named", ":123456789012:", False),
        ("named", "%3A123456789012%3A", False),
        ("named", "a:12345:", True),
    ],
)
def test_boundary_accepts_a_place(name: str, before: str, expected: bool) -> None:
    data = before.encode()
    assert BOUNDARIES[name](data + b"123", len(data)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pw", True),
        ("dbpw", True),
        ("DB_PW", True),
        ("DBPW", True),
        ("dbPw", True),
        ("x Pw", True),
        ("DpW", False),
        ("sPW", False),
        ("Apw", False),
        ("ab7pw", False),
    ],
)
def test_named_takes_two_letters_for_a_name_only_if_they_fit_what_precedes(text: str, expected: bool) -> None:
    assert boundaries.named(text.encode(), len(text) - 2) is expected


@pytest.mark.parametrize(
    ("before", "name", "expected"),
    [
        ("", "signingkey = ", False),
        ("\t", "signingkey=", False),
        ("config user.", "signingkey ", False),
        ("jwt.", "signingkey=", True),
        ("app_", "signingkey: ", True),
        ("jwt", "signingkey=", True),
        ("", "signingkey_v2=", True),
        ("", "signingKey=", True),
    ],
)
def test_named_knows_the_public_key_of_git_from_other_keys(before: str, name: str, expected: bool) -> None:
    assert boundaries.named(f"{before}{name}".encode(), len(before)) is expected


@given(
    parts=st.lists(
        st.sampled_from(["a", "B1_", "xyzw" * 5, "-", " ", "+/", "\\n", "\\u0041", "%3D", "%5Cu0041", "[0;31m", "é"])
    )
)
def test_next_place_passes_over_no_place_where_something_may_begin(parts: list[str]) -> None:
    data = "".join(parts).encode()
    at = 0
    while at < len(data):
        after = next_place(data, at)
        assert at < after <= len(data)
        for name in BOUNDARIES.keys() - INSIDE_WORDS:
            assert not any(BOUNDARIES[name](data, place) for place in range(at + 1, after) if place < len(data))
        at = after


@given(
    before=st.text(st.sampled_from("aZ\\_ é"), max_size=3),
    word=st.sampled_from(boundaries._OTHER_WORDS),
    data=st.data(),
)
def test_named_asks_its_pattern_wherever_a_word_may_precede(before: str, word: str, data: st.DataObject) -> None:
    written = data.draw(st.sampled_from([word, word.title(), word.upper(), word[:-1], f"{word}s"]))
    joint = data.draw(st.sampled_from(["", "_", ".", "-", " ", "  "]))
    text = f"{before}{written}{joint}key".encode()
    at = len(text) - len("key")
    assert boundaries.named(text, at) == (boundaries._OTHER.search(text, max(0, at - boundaries.REACH), at) is None)
