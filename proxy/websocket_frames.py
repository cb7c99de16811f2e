"""Converts websocket messages to frames and back, for both sides of a relayed websocket. Pure.

Source: RFC 6455 sections 5.2 (opcodes) and 7.4.1 (close codes).
"""

from struct import pack
from typing import Any, Final

from proxy.peers import Message, MessageKind

_OPCODES: Final[dict[MessageKind, int]] = {"text": 1, "binary": 2, "close": 8, "ping": 9, "pong": 10}
_KINDS: Final = {opcode: kind for kind, opcode in _OPCODES.items()}
_UNSENT_CODES: Final = frozenset({None, 1005, 1006})
"""They describe a close without a code and must not appear in a frame."""


def message_of(opcode: int, data: Any, reason: str | None) -> Message:
    """Return a received frame as a message; for any other `opcode`, a lost connection, a `close` with `abrupt` set.

    `data`: text as `str`, else bytes; of a close frame its code, 0 without one. `reason`: of a close frame.
    """
    kind = _KINDS.get(opcode)
    if kind is None:
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
