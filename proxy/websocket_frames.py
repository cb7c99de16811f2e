"""Frames of both sides of a relayed websocket: converted to messages and back, and checked for their mask. Pure.

Source: RFC 6455 sections 5.1 (masks), 5.2 (opcodes), 5.5 (control frames) and 7.4.1 (close codes).
"""

from struct import pack
from typing import Any, Final, Protocol

from proxy.nouns.peers import Message, MessageKind

_OPCODES: Final[dict[MessageKind, int]] = {"text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}
_KINDS: Final = {opcode: kind for kind, opcode in _OPCODES.items()}
_LOST: Final = 1006
"""A peer that sends this code all the same says that its own connection broke; aiohttp accepts it."""
_UNSENT_CODES: Final = frozenset({None, 1005, _LOST})
"""They describe a close without a code and must not appear in a frame."""
_CONTROL_BYTES: Final = 125
"""The most that a control frame carries; the code of a close frame is a part of it."""
_CODE_BYTES: Final = 2
_REFUSED: Final = b"\xf0\x00"
"""A frame with reserved bits: no reader takes it."""


def message_of(opcode: int, data: Any, reason: str | None) -> Message:
    """Return a received frame as a message; for any other `opcode`, a lost connection, a `close` with `abrupt` set.

    `data`: text as `str`, else bytes; of a close frame its code, 0 without one. `reason`: of a close frame.
    """
    kind = _KINDS.get(opcode)
    if kind is None or (kind == "close" and data == _LOST):
        return Message("close", abrupt=True)
    if kind == "close":
        return Message("close", reason or "", data or None)
    return Message(kind, data if kind == "text" else bytes(data))


def frame_of(message: Message) -> tuple[bytes, int]:
    """Return payload and opcode of the frame that carries a message."""
    data = message.data.encode() if isinstance(message.data, str) else message.data
    if message.kind == "close":
        data = b"" if message.code in _UNSENT_CODES else pack("!H", message.code) + data
    return data, _OPCODES[message.kind]


def control_text(message: Message) -> str:
    """Return what a ping, a pong or a close frame says, whatever its bytes are; "" if nothing."""
    data = message.data
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


def with_control_text(message: Message, text: str) -> Message:
    """Return the control frame with another text, of which it carries as much as fits."""
    is_close = message.kind == "close"
    data = text.encode("utf-8", "surrogateescape")[: _CONTROL_BYTES - _CODE_BYTES if is_close else _CONTROL_BYTES]
    return Message(message.kind, data.decode("utf-8", "ignore") if is_close else data, message.code)


class FrameReader(Protocol):
    """The part of aiohttp's reader of frames that its protocols call."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Read what arrived."""

    def feed_eof(self) -> None:
        """Note the end."""


class MaskGuard:
    """Passes frames on to a reader that does not look whether they are masked, up to the first wrong one.

    The reader gets an invalid frame in place of that one, and ends the connection as for any other. `masked`: as frames
    of clients must be; those of providers must not. Headers are passed on whole, so any chunking gives the same.
    """

    __slots__ = ("_begun", "_left", "_masked", "_reader")

    def __init__(self, reader: FrameReader, *, masked: bool) -> None:
        self._reader = reader
        self._masked = masked
        self._begun = b""
        """An incomplete header."""
        self._left = 0
        """Bytes of the current frame that have not arrived."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Read what arrived."""
        return self._reader.feed_data(self._checked(self._begun + data if self._begun else data))

    def feed_eof(self) -> None:
        """Note the end."""
        self._reader.feed_eof()

    def _checked(self, data: bytes) -> bytes:
        self._begun, at, end = b"", self._left, len(data)
        while at < end:
            second = data[at + 1] if at + 1 < end else None
            if second is not None and (second >= 0x80) != self._masked:
                return data[:at] + _REFUSED
            length = 0 if second is None else second & 0x7F
            head = at + 2 + {126: 2, 127: 8}.get(length, 0)
            if second is None or head > end:
                self._begun, self._left = data[at:], 0
                return data[:at]
            if length > 125:
                length = int.from_bytes(data[at + 2 : head])
            at = head + (4 if self._masked else 0) + length
        self._left = at - end
        return data
