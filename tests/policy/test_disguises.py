"""A text is read as whoever reads it next may read it, and every place in that leads back to the original."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy import disguises
from proxy.policy.disguises import may_hold, undone
from proxy.policy.patience import Patience, TooSlow


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\\u0067hp", "ghp"),
        ("a \\\\\\\\u0067hp", "a ghp"),
        ("\\x67hp\\x5F", "ghp_"),
        ("%67hp%5f%2D", "ghp_-"),
        ("&#103;hp&#x5F;&#126;", "ghp_~"),
        ("gh\u00adp\u200b\u200c_", "ghp_"),
        ("\u200b\ufeffghp\u2060", "ghp"),
    ],
)
def test_text_when_it_is_disguised_then_it_is_read_as_it_is_meant(text: str, plain: str) -> None:
    found = undone(text)
    assert may_hold(text)
    assert found is not None
    assert found.text == plain
    assert found.origin(len(plain)) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "plain", "50% of", "100 %d", "a%20b%3D", "\\n\\u00e9 \\u0007", "C:\\users", "&amp; &#9; &#8217;",
        "\U0001f468\u200d\U0001f469", "\u0645\u200c\u0645", "a \u200b b", "na\u00efve",
    ],
)  # fmt: skip
def test_text_when_it_is_ordinary_then_it_has_no_disguise(text: str) -> None:
    assert undone(text) is None


LETTER = st.sampled_from("gH_7-")
DISGUISED = st.one_of(
    LETTER.map(lambda letter: (letter, letter)),
    st.just((" ", " ")),
    LETTER.map(lambda letter: (letter, f"\\u{ord(letter):04x}")),
    LETTER.map(lambda letter: (letter, f"\\\\x{ord(letter):02X}")),
    LETTER.map(lambda letter: (letter, f"%{ord(letter):02x}")),
    LETTER.map(lambda letter: (letter, f"&#{ord(letter)};")),
    LETTER.map(lambda letter: (letter, f"&#x{ord(letter):x};")),
)


@given(st.lists(DISGUISED, max_size=12))
def test_place_when_it_is_in_any_text_then_it_leads_to_what_was_written_there(parts: list[tuple[str, str]]) -> None:
    plain, text = "".join(meant for meant, _ in parts), "".join(written for _, written in parts)
    found = undone(text)
    if found is None:
        assert plain == text
        return
    assert (found.text, may_hold(text)) == (plain, True)
    at = 0
    for place, (_, written) in enumerate(parts):
        assert found.origin(place) == at
        at += len(written)
    assert found.origin(len(parts)) == at


@pytest.mark.parametrize("before", range(262_136, 262_146))
def test_disguise_when_it_stands_anywhere_in_a_large_text_then_it_is_noticed(before: int) -> None:
    assert may_hold(" " * before + "\\u0067" + " " * 10)
    assert not may_hold(" " * before + "\\n \u2019 100%")


@pytest.mark.parametrize("disguise", ["\\u0041", "\\\\u0041", "&#65;", "%41"])
@pytest.mark.parametrize("around", range(-10, 3))
def test_disguise_when_it_stands_where_the_text_is_searched_in_pieces_then_it_is_undone(
    disguise: str, around: int
) -> None:
    before = "x" * (disguises._SEARCHED + around)
    plain = undone(f"{before}{disguise}{disguise} end")
    assert plain is not None
    assert plain.text == f"{before}AA end"
    assert plain.origin(len(before) + 1) == len(before) + len(disguise)


def test_text_when_it_is_searched_in_vain_then_others_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[None] = []
    monkeypatch.setattr(disguises, "give_way", lambda: turns.append(None))
    assert undone("\\" * 1_000_000) is None
    assert len(turns) > 10


def test_text_when_it_is_hostile_then_the_time_is_linear() -> None:
    began = time.thread_time()
    for text in ("\\" * 1_000_000, "\\" * 1_000_000 + "u0067", "&#" * 500_000, "%" * 1_000_000, "\u200b" * 200_000):
        undone(text)
    assert time.thread_time() - began < 5


def test_text_when_it_is_nothing_but_disguises_then_patience_ends() -> None:
    with pytest.raises(TooSlow):
        undone("\\u0067" * 2000, Patience(-1.0))
