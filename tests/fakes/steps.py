"""Scripts for the provider, built from bytes: what arrives, when, and how the connection ends.

`script(b"HTTP/1.1 200 OK\\r\\n...", 0.05, b"more", RESET)`: bytes are sent as they are, a number is a pause in seconds,
a `Gate` waits until the test opens it, the constants end the connection. The request's body is read first unless
`read_first=False`.
"""

import asyncio
from collections.abc import Iterable
from enum import Enum

from tests.fakes.provider import Call, Gate, Script


class End(Enum):
    """How a script may finish other than by leaving the connection open for the next request."""

    CLOSE = "FIN after everything was sent"
    RESET = "RST"
    SILENCE = "say nothing more, keep the connection until the peer leaves"


CLOSE, RESET, SILENCE = End.CLOSE, End.RESET, End.SILENCE
Step = bytes | float | Gate | End


def script(*steps: Step, read_first: bool = True) -> Script:
    """Return a script that performs `steps` in order."""

    async def perform(call: Call) -> None:
        if read_first:
            await call.body()
        for step in steps:
            await perform_step(call, step)

    return perform


async def perform_step(call: Call, step: Step) -> None:
    if isinstance(step, bytes):
        await call.send(step)
    elif isinstance(step, Gate):
        await step.passed()
    elif step is CLOSE:
        call.close()
    elif step is RESET:
        await asyncio.sleep(0.02)  # what was written before must have left, or the kernel drops it with the reset
        call.reset()
    elif step is SILENCE:
        await call.peer_gone()
    else:
        assert isinstance(step, float | int)
        await asyncio.sleep(step)


def head(status: str = "200 OK", *lines: str, content_type: str = "application/json") -> bytes:
    """A response head without framing headers, up to the blank line."""
    fields = [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, *lines, "", ""]).encode("latin-1")


def whole(body: bytes, *lines: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A complete answer with Content-Length."""
    return head(status, *lines, f"Content-Length: {len(body)}", content_type=content_type) + body


def sse_head(*lines: str) -> bytes:
    """The head of a chunked event stream."""
    return head("200 OK", *lines, "Transfer-Encoding: chunked", content_type="text/event-stream; charset=utf-8")


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunks(pieces: Iterable[bytes]) -> bytes:
    return b"".join(chunk(piece) for piece in pieces)


LAST_CHUNK = b"0\r\n\r\n"
