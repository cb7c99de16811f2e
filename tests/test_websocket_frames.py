from struct import pack
from typing import Any

import pytest
from aiohttp import WSMsgType

from proxy.nouns.peers import Message
from proxy.websocket_frames import MaskGuard, control_text, frame_of, message_of, with_control_text
from tests.fakes.websocket import BINARY, TEXT, Frame, encode


@pytest.mark.parametrize(
    ("opcode", "data", "reason", "message"),
    [
        (WSMsgType.TEXT, "hé", "", Message("text", "hé")),
        (WSMsgType.BINARY, bytearray(b"\0"), "", Message("binary", b"\0")),
        (WSMsgType.PING, b"1", "", Message("ping", b"1")),
        (WSMsgType.PONG, b"1", "", Message("pong", b"1")),
        (WSMsgType.CLOSE, 1001, "bye", Message("close", "bye", 1001)),
        (WSMsgType.CLOSE, 0, None, Message("close", "")),
        (WSMsgType.CLOSED, None, None, Message("close", abrupt=True)),
        (WSMsgType.CLOSE, 1006, "broken", Message("close", abrupt=True)),
    ],
    ids=["text", "binary", "ping", "pong", "close", "close without a code", "lost", "told to be lost"],
)
def test_message_when_a_frame_is_received_then_it_says_the_same(
    opcode: WSMsgType, data: Any, reason: str | None, message: Message
) -> None:
    assert message_of(opcode, data, reason) == message


@pytest.mark.parametrize(
    ("message", "payload", "opcode"),
    [
        (Message("text", "hé"), "hé".encode(), WSMsgType.TEXT),
        (Message("binary", b"\0"), b"\0", WSMsgType.BINARY),
        (Message("ping", b"1"), b"1", WSMsgType.PING),
        (Message("pong", b"1"), b"1", WSMsgType.PONG),
        (Message("close", "bye", 1001), pack("!H", 1001) + b"bye", WSMsgType.CLOSE),
        (Message("close", "bye"), b"", WSMsgType.CLOSE),
        (Message("close", "bye", 1005), b"", WSMsgType.CLOSE),
        (Message("close", "bye", 1006), b"", WSMsgType.CLOSE),
    ],
)
def test_frame_when_a_message_is_sent_then_a_code_without_meaning_stays_out(
    message: Message, payload: bytes, opcode: WSMsgType
) -> None:
    assert frame_of(message) == (payload, opcode)


class Reader:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True


SIZES = (0, 1, 125, 126, 127, 65_535, 65_536)
FRAMES = [Frame(TEXT if size % 2 else BINARY, bytes(size)) for size in SIZES]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 130, 65_537, 1 << 20])
def test_frames_when_masked_as_they_must_be_then_they_pass_in_any_pieces(masked: bool, step: int) -> None:
    wire = b"".join(encode(frame, mask=masked) for frame in FRAMES)
    guard = MaskGuard(reader := Reader(), masked=masked)
    for at in range(0, len(wire), step):
        assert guard.feed_data(wire[at : at + step]) == (False, b"")
    guard.feed_eof()
    assert (reader.data, reader.ended) == (wire, True)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1, 2, 100_000])
def test_frame_when_masked_wrongly_then_the_reader_gets_an_invalid_one_in_its_place(
    masked: bool, size: int, step: int
) -> None:
    before = encode(Frame(TEXT, b"x" * size), mask=masked)
    wire = before + encode(Frame(TEXT, b"wrong"), mask=not masked)
    guard = MaskGuard(reader := Reader(), masked=masked)
    for at in range(0, len(wire), step):
        guard.feed_data(wire[at : at + step])
        if len(reader.data) > len(before):
            break
    assert reader.data == before + b"\xf0\x00"


@pytest.mark.parametrize(
    ("message", "text", "sent"),
    [
        (Message("ping", b"\xff"), "\udcff" + "x" * 125, Message("ping", b"\xff" + b"x" * 124)),
        (Message("pong", b"1"), "é" * 63, Message("pong", "é".encode() * 62 + b"\xc3")),
        (Message("close", "bye", 1001), "é" * 62, Message("close", "é" * 61, 1001)),
    ],
    ids=["any bytes", "cut", "a reason stays text"],
)
def test_control_frame_when_its_text_is_replaced_then_it_fits(message: Message, text: str, sent: Message) -> None:
    assert with_control_text(message, text) == sent
    assert with_control_text(message, control_text(message)) == message
