"""The provider of the benchmark: fixed bytes from a bare `asyncio.Protocol`, so that it costs next to nothing itself.

A request whose body asks for a stream gets 200 events, 174 bytes each, 5 ms apart, each in a write of its own; any
other gets a chat completion of 580 bytes. `include_usage` changes the events as it does at the provider. Run as a
process of its own (`python -m bench.upstream`); it prints its port and ends with its standard input.
"""

import asyncio
import sys
from typing import cast

import uvloop

ANSWER_BYTES = 580
EVENTS = 200
EVENT_BYTES = 174
GAP_S = 0.005

_PROSE = (
    b"A reverse proxy stands in front of the services of an application and takes every request for them. It can tell"
    b" who asks, share the load between several servers, hold back what is too much, and keep a record of all of it. "
    b"The services behind it need not know: each of them answers as if it had been asked directly. "
)
"""What the model says: words as in any answer, because what reads along has less to do with them, or more, than with a
single letter without end."""

_BASE = b'"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini",'
_USAGE = b'"usage":{"prompt_tokens":21,"completion_tokens":198,"total_tokens":219}'


def _completion() -> bytes:
    start = (
        b'{"id":"chatcmpl-bench","object":"chat.completion","created":1763850000,"model":"gpt-4o-mini-2024-07-18",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    )
    end = b'"},"logprobs":null,"finish_reason":"stop"}],' + _USAGE + b"}"
    body = start + _said(0, ANSWER_BYTES - len(start) - len(end)) + end
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\ncontent-length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def _said(start: int, size: int) -> bytes:
    """Return `size` bytes of an answer that goes on for ever, from place `start` on."""
    start %= len(_PROSE)
    return (_PROSE * (size // len(_PROSE) + 2))[start : start + size]


def _event(text: bytes, usage_null: bool) -> bytes:
    tail = b',"usage":null}\n\n' if usage_null else b"}\n\n"
    choice = b'"choices":[{"index":0,"delta":{"content":"' + text + b'"},"logprobs":null,"finish_reason":null}]'
    return b"data: {" + _BASE + choice + tail


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _stream(include_usage: bool) -> list[bytes]:
    """The chunks of one stream; the plain event is exactly `EVENT_BYTES` long."""
    size = EVENT_BYTES - len(_event(b"", usage_null=False))
    events = [_chunk(_event(_said(number * size, size), include_usage)) for number in range(EVENTS - 1)]
    last = b"data: {" + _BASE + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]'
    events.append(_chunk(last + (b',"usage":null}\n\n' if include_usage else b"}\n\n")))
    end = _chunk(b"data: {" + _BASE + b'"choices":[],' + _USAGE + b"}\n\n") if include_usage else b""
    events[-1] += end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return events


ANSWER = _completion()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAMS = {asked: _stream(asked) for asked in (False, True)}


class Provider(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            return
        head = self._buffer[:at].lower()
        if b"chunked" in head:
            end = self._buffer.find(b"\r\n0\r\n\r\n", at)
            if end < 0:
                return
            end += 7
        else:
            mark = head.find(b"content-length:")
            end = at + 4 + (int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0)
            if len(self._buffer) < end:
                return
        body, self._buffer = self._buffer[at + 4 : end], self._buffer[end:]
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        if b'"stream":true' not in body:
            self._transport.write(ANSWER)
            return
        self._transport.write(STREAM_HEAD)
        chunks = STREAMS[b'"include_usage":true' in body]
        self._tick(chunks, 0, self._loop.time())

    def _tick(self, chunks: list[bytes], index: int, started: float) -> None:
        self._transport.write(chunks[index])
        if index + 1 < len(chunks):
            due = started + (index + 1) * GAP_S
            self._timer = self._loop.call_at(due, self._tick, chunks, index + 1, started)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
