"""Models with lines: each call of a model gets its next line, whatever the endpoint, whole or streamed.

Rule of the file: a line that is asked for and not there is a failure of the test, and so is one that is left over.
"""

import json
from dataclasses import dataclass
from typing import Any

from tests.fakes.answers import Answer, event, to_json
from tests.fakes.provider import Call, give
from tests.fakes.steps import Step, perform_step


@dataclass(frozen=True)
class Line:
    """What a model says. `tokens`: billed input and output. `steps`: raw bytes in the place of an answer."""

    text: str | None = None
    finish: str = "stop"
    refusal: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    tokens: tuple[int, int] = (100, 20)
    steps: tuple[Step, ...] = ()


def accept(reason: str = "fine") -> Line:
    return Line(json.dumps({"verdict": "accept", "reason": reason}), tokens=(150, 7))


def reject(reason: str = "wrong") -> Line:
    return Line(json.dumps({"verdict": "reject", "reason": reason}), tokens=(150, 9))


class Cast:
    """A script for `Provider.on`. `asked`: model and decoded body of every call, in order."""

    def __init__(self, **lines: list[Line]) -> None:
        self.left = {name.replace("_", "-"): list(own) for name, own in lines.items()}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[bytes] = []
        """The bodies as they were sent."""

    @property
    def order(self) -> list[str]:
        return [model for model, _ in self.asked]

    async def __call__(self, call: Call) -> None:
        document = json.loads(await call.body())
        model = document["model"]
        self.asked.append((model, document))
        line = self.left[model].pop(0)
        if line.steps:
            for step in line.steps:
                await perform_step(call, step)
            return
        make = response if call.seen.target.endswith("/responses") else chat
        answer = make(document, line)
        self.answers.append(b"".join(answer.pieces))
        await give(call, answer)


def chat(document: dict[str, Any], line: Line) -> Answer:
    """A chat completion, whole or as chunks of three characters."""
    base = {"id": f"chatcmpl-{document['model']}", "created": 1, "model": document["model"]}
    taken, given = line.tokens
    usage = {"prompt_tokens": taken, "completion_tokens": given, "total_tokens": taken + given}
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(line.calls)
    ]
    said: dict[str, Any] = {"role": "assistant", "content": line.text, "refusal": line.refusal}
    if calls:
        said["tool_calls"] = calls
    if not document.get("stream"):
        choice = {"index": 0, "message": said, "finish_reason": line.finish}
        return _answer(
            line, document, [to_json({**base, "object": "chat.completion", "choices": [choice], "usage": usage})]
        )
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": line.refusal}]
    text = line.text or ""
    deltas += [{"content": text[at : at + 3]} for at in range(0, len(text), 3)]
    deltas += [{"tool_calls": [{**one, "index": n}]} for n, one in enumerate(calls)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": line.finish})
    pieces = [event({**base, "object": "chat.completion.chunk", "choices": [choice]}) for choice in choices]
    if (document.get("stream_options") or {}).get("include_usage"):
        pieces.append(event({**base, "choices": [], "usage": usage}))
    return _answer(line, document, [*pieces, b"data: [DONE]\n\n"])


def response(document: dict[str, Any], line: Line) -> Answer:
    """A response, whole or as events."""
    part = {"type": "output_text", "text": line.text or ""}
    output: list[dict[str, Any]] = [{"type": "message", "role": "assistant", "content": [part]}]
    output += [{"type": "function_call", "call_id": "c", "name": name, "arguments": own} for name, own in line.calls]
    is_cut = line.finish == "length"
    taken, given = line.tokens
    whole = {
        "id": f"resp_{document['model']}",
        "object": "response",
        "model": document["model"],
        "status": "incomplete" if is_cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "output": output,
        "usage": {"input_tokens": taken, "output_tokens": given, "total_tokens": taken + given},
    }
    if not document.get("stream"):
        return _answer(line, document, [to_json(whole)])
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {**whole, "output": [], "usage": None}}]
    events += [{"type": "response.output_text.delta", "delta": word} for word in (line.text or "").split(" ")]
    events.append({"type": "response.incomplete" if is_cut else "response.completed", "response": whole})
    return _answer(line, document, [event(one, one["type"]) for one in events])


def _answer(line: Line, document: dict[str, Any], pieces: list[bytes]) -> Answer:
    is_stream = bool(document.get("stream"))
    kind = "text/event-stream" if is_stream else "application/json"
    taken, given = line.tokens
    return Answer(
        pieces, content_type=kind, stream=is_stream, model=document["model"], input_tokens=taken, output_tokens=given
    )
