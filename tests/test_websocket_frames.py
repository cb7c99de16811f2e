from struct import pack
from typing import Any

import pytest
from aiohttp import WSMsgType

from proxy.peers import Message
from proxy.websocket_frames import frame_of, message_of


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
    ],
    ids=["text", "binary", "ping", "pong", "close", "close without a code", "lost"],
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
