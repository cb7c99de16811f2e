"""Texts of a stream that stand in no data line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.sse import Event
from proxy.openai.sse_aside import may_have_asides, with_asides

DATA = b'{"a":1}'
LONG = b"a secret of some length"


@pytest.mark.parametrize(
    ("cut", "texts"),
    [
        (b"data: " + LONG + b"\n\n", []),
        (b": " + LONG + b"\n\n", [LONG]),
        (b":" + LONG, [LONG]),
        (b"\xef\xbb\xbf: " + LONG + b"\r\n", [LONG]),
        (b"id: " + LONG + b"\revent: " + LONG[:12] + b"\rdata: x\r\r", [LONG, LONG[:12]]),
        (b"retry: " + LONG + b"\nretry: 10\n\n", [LONG]),
        (b"Data: " + LONG + b"\n\n", [b"Data: " + LONG]),
        (LONG, [LONG]),
        (b": short\nid: 12\nevent: x\ndata: x\n\n", []),
    ],
)
def test_event_when_it_has_text_beside_its_data_then_each_is_replaced_and_no_other_byte(
    cut: bytes, texts: list[bytes]
) -> None:
    seen: list[bytes] = []

    def replaced(text: bytes) -> bytes:
        seen.append(text)
        return b"[" + text + b"]"

    sent = with_asides(cut, replaced)
    assert seen == texts
    assert sent.replace(b"[", b"").replace(b"]", b"") == cut
    assert len(sent) == len(cut) + 2 * len(texts)


@given(st.binary())
def test_event_when_nothing_is_replaced_then_it_is_the_same(cut: bytes) -> None:
    assert with_asides(cut, lambda text: text) == cut


@pytest.mark.parametrize(
    ("cut", "event", "may"),
    [
        (b"data: " + DATA + b"\n\n", Event(None, DATA), False),
        (
            b"event: response.output_text.delta\ndata: " + DATA + b"\n\n",
            Event(b"response.output_text.delta", DATA),
            False,
        ),
        (b"event: " + LONG + b"\ndata: " + DATA + b"\n\n", Event(LONG, DATA), True),
        (b": " + LONG + b"\ndata: " + DATA + b"\n\n", Event(None, DATA), True),
        (b": " + LONG + b"\n", None, True),
        (b": ping\n\n", None, False),
    ],
)
def test_event_when_its_framing_is_the_usual_one_then_nobody_looks(cut: bytes, event: Event | None, may: bool) -> None:
    assert may_have_asides(cut, event) is may
