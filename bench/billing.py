"""A provider that bills what it generates, token by token, and callers that keep what they were told.

The ledger of the provider is the truth that quotas are judged by: it grows while an answer is generated and knows
nothing of the proxy. One token is one letter, so that no estimate by bytes can be below the truth. A whole answer is
generated before it is sent and billed in full, also if nobody is there any more to take it.
"""

import asyncio
import json
import random
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.answers import Answer
from tests.fakes.provider import Billed, Call, Provider
from tests.fakes.wire import Address, Cut, Reply, Wire, post

MODEL = "gpt-4o-mini"
INPUT_NANOS, OUTPUT_NANOS = 150, 600
"""Of one token of `MODEL`, as config/prices.yaml has them."""
INPUT_TOKENS = 12
WORDS = "hi there"
CHAT, TEXT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"
_TIMEOUT_S = 60.0


def cost(entry: Billed) -> int:
    """Nano-dollars of one entry of the ledger."""
    return entry.input_tokens * INPUT_NANOS + entry.output_tokens * OUTPUT_NANOS


@dataclass
class Pace:
    """How the provider answers. `most`: output tokens of one choice, `None`: as many as the request allows."""

    seconds: float = 0.3
    most: int | None = None
    silent: float = 0.0
    """Share of the answers that come without figures of usage."""
    input_tokens: Mapping[str, int] = field(default_factory=dict)
    """What an input costs, by path, where it is not `INPUT_TOKENS`."""


def billing_provider(pace: Pace) -> Provider:
    """Return a started provider. A request's length follows from its case, so that a run can be repeated."""
    provider = Provider()

    async def answer(call: Call) -> None:
        request = json.loads(await call.body())
        await _Generation(call, request, pace).run()

    provider.default = answer
    return provider.start()


class _Generation:
    """One answer while it is generated."""

    def __init__(self, call: Call, request: dict[str, Any], pace: Pace) -> None:
        self._call = call
        self._path = call.seen.target
        dice = random.Random(zlib.crc32(call.case.encode()))
        allowed = next((request[name] for name in _MAXIMA if request.get(name) is not None), 40)
        self._count = 0 if self._path == EMBEDDINGS else dice.randint(1, allowed) if pace.most is None else pace.most
        self._count = min(self._count, allowed)
        self._choices = request.get("n") or 1
        self._pause_s = pace.seconds * dice.uniform(0.5, 1.5)
        self._is_stream = request.get("stream") is True
        self._input = pace.input_tokens.get(self._path, INPUT_TOKENS)
        self._tells = dice.random() >= pace.silent

    async def run(self) -> None:
        entry = self._call.bill(Answer([], model=MODEL, input_tokens=self._input, output_tokens=0))
        if self._is_stream:
            await self._stream(entry)
        else:
            entry.output_tokens = self._count * self._choices
            await asyncio.sleep(self._pause_s)
            body = json.dumps(self._document()).encode()
            await self._call.send(Answer([body]).head() + body)
        entry.completed = True

    async def _stream(self, entry: Billed) -> None:
        await self._call.send(Answer([], content_type="text/event-stream", stream=True).head())
        for event in self._beginning():
            await self._send(event)
        for index in range(self._count):
            await asyncio.sleep(self._pause_s / self._count)
            entry.output_tokens += self._choices
            for choice in range(self._choices):
                await self._send(self._delta(choice, index))
        for event in self._end():
            await self._send(event)
        await self._call.send(b"0\r\n\r\n")

    async def _send(self, document: dict[str, Any] | bytes) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        piece = b"data: " + data + b"\n\n"
        await self._call.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def _beginning(self) -> Iterable[dict[str, Any]]:
        if self._path == RESPONSES:
            yield {"type": "response.created", "response": self._response("in_progress"), "sequence_number": 0}

    def _delta(self, choice: int, index: int) -> dict[str, Any]:
        if self._path == RESPONSES:
            where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": index + 1}
            return {"type": "response.output_text.delta", **where, "delta": "a", "logprobs": []}
        said = {"delta": {"content": "a"}} if self._path == CHAT else {"text": "a"}
        return self._chunk([{"index": choice, **said, "finish_reason": None}])

    def _end(self) -> Iterable[dict[str, Any] | bytes]:
        if self._path == RESPONSES:
            done = self._response("completed")
            yield {"type": "response.completed", "response": done, "sequence_number": self._count + 1}
            return
        rest = {"delta": {}} if self._path == CHAT else {"text": ""}
        yield self._chunk([{"index": i, **rest, "finish_reason": "stop"} for i in range(self._choices)])
        if self._tells:
            yield {**self._chunk([]), "usage": self._usage()}
        yield b"[DONE]"

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._path == CHAT else "text_completion"
        return {"id": "c-1", "object": kind, "created": 1, "model": MODEL, "choices": choices}

    def _document(self) -> dict[str, Any]:
        text = "a" * self._count
        if self._path == RESPONSES:
            return self._response("completed")
        if self._path == EMBEDDINGS:
            data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
            usage = {"prompt_tokens": self._input, "total_tokens": self._input}
            return {"object": "list", "data": data, "model": MODEL, "usage": usage}
        said = {"message": {"role": "assistant", "content": text}} if self._path == CHAT else {"text": text}
        choices = [{"index": i, **said, "finish_reason": "stop"} for i in range(self._choices)]
        usage = {"usage": self._usage()} if self._tells else {}
        return {"id": "c-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": choices, **usage}

    def _usage(self) -> dict[str, int]:
        output = self._count * self._choices
        return {
            "prompt_tokens": self._input,
            "completion_tokens": output,
            "total_tokens": self._input + output,
        }

    def _response(self, status: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": "a" * self._count, "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]}
        output = self._count * self._choices
        usage = {"input_tokens": self._input, "output_tokens": output, "total_tokens": self._input + output}
        details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
        is_done = status == "completed"
        shape = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        head = {"id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": MODEL, **shape}
        return {**head, "output": [item] if is_done else [], "usage": {**usage, **details} if is_done else None}


_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass
class Ask:
    """One request as its caller saw it. Times are monotonic seconds, as in `Seen`."""

    case: str
    user: str
    project: str
    path: str = CHAT
    members: dict[str, Any] = field(default_factory=dict)
    leaves_after_s: float | None = None
    """The caller walks away then."""
    sent_at: float = 0.0
    ended_at: float = 0.0
    status: int = 0
    """0: no answer."""
    code: str = ""
    retry_after: str | None = None
    answered: bool = False
    """The answer came in full."""
    aborted: bool = False
    cut: bool = False
    """The proxy died under it, or was not there."""
    text_events: int = 0

    @property
    def stream(self) -> bool:
        return self.members.get("stream") is True

    @property
    def document(self) -> dict[str, Any]:
        """The body."""
        if self.path == CHAT:
            return {"model": MODEL, **self.members, "messages": [{"role": "user", "content": WORDS}]}
        return {"model": MODEL, **self.members, "prompt" if self.path == TEXT else "input": WORDS}

    def request(self) -> bytes:
        """The bytes to send; the conversation carries the case into the trace."""
        who = (f"X-Sidegate-User: {self.user}", f"X-Sidegate-Project: {self.project}")
        return post(
            self.path, json.dumps(self.document).encode(), *who, f"X-Sidegate-Conversation: {self.case}", case=self.case
        )

    async def go(self, address: Address) -> "Ask":
        """Send it and take what comes. Raises nothing: what happened is in the fields."""
        self.sent_at = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT_S if self.leaves_after_s is None else self.leaves_after_s):
                async with await Wire.open(address) as wire:
                    await wire.send(self.request())
                    await self._receive(wire)
        except TimeoutError:
            self.aborted = True
        except (Cut, OSError):
            self.cut = True
        self.ended_at = time.monotonic()
        return self

    async def _receive(self, wire: Wire) -> None:
        reply: Reply = await wire.head()
        self.status = reply.status
        self.retry_after = reply.value("Retry-After")
        await wire.body(reply, "POST")
        if reply.status >= 400:
            self.code = json.loads(reply.body)["error"]["code"]
        self.text_events = reply.body.count(b'"a"')
        ended = not self.stream or b"[DONE]" in reply.body or b"response.completed" in reply.body
        self.answered = reply.status == 200 and (ended or b"response.incomplete" in reply.body)
