"""Places, positions and what is written there agree, whatever was cut away before."""

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.detect import encode
from proxy.policy.stream_window import Window

PART = st.one_of(
    st.text("abé键😀\ud800", min_size=1, max_size=4).map(lambda text: (text, text)),
    st.sampled_from([("\n", "\\n"), ("s", "\\u0073"), ("😀", "\\ud83d"), ('"', '\\"')]),
)


@settings(max_examples=200, deadline=None)
@given(
    context=st.text("ab é", max_size=6),
    parts=st.lists(PART, max_size=12),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_window_tells_what_is_meant_and_how_it_was_written(
    context: str, parts: list[tuple[str, str]], cuts: list[int]
) -> None:
    window = Window(100, context)
    places, meant, written = [len(encode(context))], "", ""
    positions = [100]
    for part, how in parts:
        window.append(part, [(0, how)] if part != how else None)
        meant, written = meant + part, written + how
        places.append(places[-1] + len(encode(part)))
        positions.append(100 + len(written))
    for cut in cuts:
        if window.data and cut < len(window.data):
            window.cut(cut)
    for number, (start, position) in enumerate(zip(places, positions, strict=True)):
        if start >= window.base:
            assert window.position(start) == position
            assert window.meant(start, window.end) == "".join(part for part, _ in parts[number:])
            assert window.shown(start, window.end) == "".join(how for _, how in parts[number:])
    assert window.end == places[-1]


def test_characters_are_counted_beyond_ascii() -> None:
    window = Window()
    window.append("abé键")
    assert [window.characters(0, at) for at in (2, 4, 7)] == [2, 3, 4]


def test_context_has_no_width() -> None:
    window = Window(7, "key: ")
    window.append("x")
    assert [window.position(at) for at in (5, 6)] == [7, 8]
