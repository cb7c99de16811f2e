"""What the provider answers when no script says otherwise: the shapes of the OpenAI API, decided by the request alone.

Rules of the file: pure functions, same request and case -> same bytes. Usage follows from the case's name only, so that
it is the same direct and through the proxy, and differs between cases. `include_usage` behaves as documented by the
provider: `usage: null` on every chunk and one more chunk with `choices: []`; without it no chunk mentions usage.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

WORDS = (
    "Side",
    "gate",
    " answers",
    " in",
    " small",
    " pieces",
    ",",
    " naïve",
    " 世界",
    " 👋",
    ' \\"quoted\\"',
    " end.",
)


@dataclass(frozen=True)
class Answer:
    """A complete answer. `pieces` are sent one by one; `stream` frames each as a chunk of its own."""

    pieces: Sequence[bytes]
    status: str = "200 OK"
    content_type: str = "application/json"
    stream: bool = False
    headers: Sequence[str] = field(default_factory=tuple)
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    def head(self) -> bytes:
        framing = "Transfer-Encoding: chunked" if self.stream else f"Content-Length: {sum(map(len, self.pieces))}"
        lines = [f"HTTP/1.1 {self.status}", f"Content-Type: {self.content_type}", *self.headers, framing, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def framed_pieces(self) -> Iterator[bytes]:
        if not self.stream:
            yield from self.pieces
            return
        for piece in self.pieces:
            yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        yield b"0\r\n\r\n"


def usage_of(case: str) -> tuple[int, int]:
    """Input and output tokens that the provider bills for any call of `case`."""
    return 11 + zlib.crc32(case.encode()) % 300, 3 + zlib.crc32(case[::-1].encode()) % 90


def to_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(", ", ": ")).encode(errors="replace")


def event(document: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + to_json(document) + b"\n\n"


def billed(document: dict[str, Any], case: str, pieces: Sequence[bytes], stream: bool = False) -> Answer:
    tokens_in, tokens_out = usage_of(case)
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    model = str(document.get("model", ""))
    return Answer(
        pieces, content_type=kind, stream=stream, model=model, input_tokens=tokens_in, output_tokens=tokens_out
    )


def chat_usage(case: str) -> dict[str, Any]:
    tokens_in, tokens_out = usage_of(case)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    }


def tool_calls(document: dict[str, Any]) -> list[dict[str, Any]]:
    if not document.get("tools"):
        return []
    name = document["tools"][0]["function"]["name"]
    return [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city": "Paris"}'}}]


def chat(document: dict[str, Any], case: str) -> Answer:
    calls = tool_calls(document)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls else "".join(WORDS), "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}
    whole = {
        "id": f"chatcmpl-{case}",
        "object": "chat.completion",
        "created": 1763850000,
        "model": f"{document.get('model')}-2026-11-01",
        "choices": [choice],
        "usage": chat_usage(case),
        "service_tier": document.get("service_tier", "default"),
    }
    return billed(document, case, [to_json(whole)])


def chat_stream(document: dict[str, Any], case: str) -> Answer:
    calls = tool_calls(document)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if calls else ""}]
    if calls:
        first = {**calls[0], "index": 0, "function": {"name": calls[0]["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in ('{"city"', ": ", '"Paris"}')
        ]
    else:
        deltas += [{"content": word} for word in WORDS]
    base: dict[str, Any] = {"id": f"chatcmpl-{case}", "object": "chat.completion.chunk", "created": 1763850000}
    base["model"] = f"{document.get('model')}-2026-11-01"
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"})
    return billed(document, case, stream_of(document, base, choices, case), stream=True)


def stream_of(
    document: dict[str, Any], base: dict[str, Any], choices: Sequence[dict[str, Any]], case: str
) -> list[bytes]:
    """Chunks of a chat or completion stream, with the usage members as `stream_options` asks for them."""
    with_usage = (document.get("stream_options") or {}).get("include_usage") is True
    extra: dict[str, Any] = {"usage": None} if with_usage else {}
    pieces = [event({**base, "choices": [choice], **extra}) for choice in choices]
    if with_usage:
        pieces.append(event({**base, "choices": [], "usage": chat_usage(case)}))
    return [*pieces, b"data: [DONE]\n\n"]


def completion(document: dict[str, Any], case: str) -> Answer:
    choice = {"text": "".join(WORDS), "index": 0, "logprobs": None, "finish_reason": "stop"}
    base = {"id": f"cmpl-{case}", "object": "text_completion", "created": 1763850000, "model": document.get("model")}
    return billed(document, case, [to_json({**base, "choices": [choice], "usage": chat_usage(case)})])


def completion_stream(document: dict[str, Any], case: str) -> Answer:
    base = {"id": f"cmpl-{case}", "object": "text_completion", "created": 1763850000, "model": document.get("model")}
    choices = [{"text": word, "index": 0, "logprobs": None, "finish_reason": None} for word in WORDS]
    choices.append({"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"})
    return billed(document, case, stream_of(document, base, choices, case), stream=True)


def response_object(document: dict[str, Any], case: str, status: str, text: str) -> dict[str, Any]:
    tokens_in, tokens_out = usage_of(case)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]}
    usage = {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": tokens_in + tokens_out,
    }
    done = status == "completed"
    return {
        "id": f"resp_{case}",
        "object": "response",
        "created_at": 1763850000,
        "status": status,
        "model": document.get("model"),
        "output": [item] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if done else None,
    }


def response(document: dict[str, Any], case: str) -> Answer:
    return billed(document, case, [to_json(response_object(document, case, "completed", "".join(WORDS)))])


def response_stream(document: dict[str, Any], case: str) -> Answer:
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response_object(document, case, "in_progress", "")}
    ]
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    events.append({"type": "response.output_item.added", "output_index": 0, "item": item})
    events.append({"type": "response.content_part.added", **where, "part": part})
    events += [{"type": "response.output_text.delta", **where, "delta": word, "logprobs": []} for word in WORDS]
    events.append({"type": "response.output_text.done", **where, "text": "".join(WORDS), "logprobs": []})
    done = response_object(document, case, "completed", "".join(WORDS))
    events.append({"type": "response.completed", "response": done})
    pieces = [event({**body, "sequence_number": number}, body["type"]) for number, body in enumerate(events)]
    return billed(document, case, pieces, stream=True)


def embeddings(document: dict[str, Any], case: str) -> Answer:
    tokens_in, _ = usage_of(case)
    inputs = document.get("input")
    count = len(inputs) if isinstance(inputs, list) else 1
    base64 = document.get("encoding_format") == "base64"
    vector: Any = "AACAPwAAAEAAAEBA" if base64 else [1.0, 2.0, 3.0]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    usage = {"prompt_tokens": tokens_in, "total_tokens": tokens_in}
    whole = {"object": "list", "data": data, "model": document.get("model"), "usage": usage}
    return Answer([to_json(whole)], model=str(document.get("model")), input_tokens=tokens_in)
