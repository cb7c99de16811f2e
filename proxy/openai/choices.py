"""The generated content of chat and completion choices, and of response items.

Both complete answers (`message`) and pieces of streams (`delta`) are counted into a `Meter`: bytes of text over all
choices and channels, finish reasons, tool calls. Text itself is never stored.

Rule of the file: members of the wrong type are ignored; nothing raises, whatever a provider sends. Stored data is
bounded in number of entries and length of names.

Source: OpenAI API reference: chat completion object and chunk, response output items; `reasoning_content` and
`reasoning` as DeepSeek, vLLM and OpenRouter spell it.
"""

from typing import Any

from proxy.exchange import MAX_TOOL_CALLS, Meter, ToolCall
from proxy.openai.documents import printable
from proxy.openai.pieces import utf8_len

MAX_FINISH_REASONS = 256
_MAX_PLACES = 4 * MAX_TOOL_CALLS
"""A provider that uses a new index for every piece is not followed any further."""
_FUNCTION_CALL = -1
"""Index of the only call in the legacy `function_call` member."""
_TEXTS = ("content", "refusal")
_REASONING = ("reasoning_content", "reasoning")
"""Some providers send the same reasoning under both names: the longer one counts."""
COUNTED = (*_TEXTS, *_REASONING)
"""Members of a delta whose text is counted."""


class ChoiceReader:
    """Reads the choices of one answer, complete or in pieces."""

    __slots__ = ("_calls", "_finished", "_meter")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._calls: dict[tuple[int, int], int] = {}
        """(choice, tool call) -> index in `meter.tool_calls`; -1 for one beyond the limit."""
        self._finished: dict[int, bool] = {}
        """Choice that has begun -> whether it has a finish reason; at most `MAX_FINISH_REASONS`."""

    @property
    def all_finished(self) -> bool:
        """True if there was a choice, and every one that has begun has a finish reason."""
        return bool(self._finished) and all(self._finished.values())

    def read(self, choices: Any) -> None:
        """Count a `choices` list. Cost for one delta of text: about 0.6 us (bench/wire_format.py)."""
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    self._read_choice(choice)

    def read_arguments(self, choice: int, place: int, text: str) -> None:
        """Count more arguments of a tool call. `choice`, `place`: as it is indexed."""
        self._read_call(choice, place, {"function": {"arguments": text}})

    def _read_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        if type(index) is not int:
            index = 0
        said = choice.get("delta")
        if said is None:
            said = choice.get("message")
        if type(said) is dict:
            self._read_message(index, said)
        if (text := choice.get("text")) is not None:
            self._meter.output_text_bytes += text_bytes(text)
        finished = self._finished
        if index not in finished and len(finished) < MAX_FINISH_REASONS:
            finished[index] = False
        reason = choice.get("finish_reason")
        if type(reason) is str and finished.get(index) is False:
            finished[index] = True
            note_finish(self._meter, reason)

    def _read_message(self, index: int, said: dict[str, Any]) -> None:
        size = reasoning = 0
        for name, value in said.items():
            if not value or name == "role":
                continue
            if name in _TEXTS:
                size += text_bytes(value)
            elif name in _REASONING:
                reasoning = max(reasoning, text_bytes(value))
            elif name == "tool_calls":
                self._read_calls(index, value)
            elif name == "audio" and type(value) is dict:
                size += text_bytes(value.get("transcript"))
            elif name == "function_call" and type(value) is dict:
                self._read_call(index, _FUNCTION_CALL, {"function": value})
        self._meter.output_text_bytes += size + reasoning

    def _read_calls(self, index: int, calls: Any) -> None:
        if type(calls) is list:
            for place, call in enumerate(calls):
                if type(call) is dict:
                    self._read_call(index, _index(call.get("index"), place), call)

    def _read_call(self, choice: int, place: int, call: dict[str, Any]) -> None:
        body = call.get("function") or call.get("custom")
        body = body if type(body) is dict else {}
        size = text_bytes(body.get("arguments")) + text_bytes(body.get("input"))
        self._meter.output_text_bytes += size
        call_id, name = printable(call.get("id")), printable(body.get("name"))
        known = self._calls.get((choice, place))
        if known is None or (call_id and known >= 0 and self._meter.tool_calls[known].id not in ("", call_id)):
            noted = add_call(self._meter, call_id, name, size)
            if noted >= 0 or len(self._calls) < _MAX_PLACES:
                self._calls[choice, place] = noted
        elif known >= 0:
            old = self._meter.tool_calls[known]
            self._meter.tool_calls[known] = ToolCall(
                "call", old.id or call_id, old.name or name, old.arguments_bytes + size
            )


def read_output_item(item: Any, meter: Meter) -> None:
    """Record the call that a finished item of a response contains, if it does."""
    if type(item) is not dict or item.get("type") not in _CALLS:
        return
    size = text_bytes(item.get("arguments")) + text_bytes(item.get("input"))
    add_call(meter, printable(item.get("call_id")) or printable(item.get("id")), printable(item.get("name")), size)


def output_item_bytes(item: Any) -> int:
    """Return the bytes of generated text in an item of a response."""
    if type(item) is not dict:
        return 0
    total = text_bytes(item.get("arguments")) + text_bytes(item.get("input"))
    return total + text_bytes(item.get("content")) + text_bytes(item.get("summary"))


def text_bytes(value: Any) -> int:
    """Return the UTF-8 size of a text, or of a list of parts with a `text`, `refusal` or `transcript` each."""
    if type(value) is str:
        return len(value) if value.isascii() else utf8_len(value)
    if type(value) is not list:
        return 0
    total = 0
    for part in value:
        if type(part) is dict:
            found = part.get("text") or part.get("refusal") or part.get("transcript")
            total += utf8_len(found) if type(found) is str else 0
    return total


def add_call(meter: Meter, call_id: str, name: str, size: int) -> int:
    """Record a tool call; return its index in `meter.tool_calls`, -1 beyond the limit."""
    if len(meter.tool_calls) >= MAX_TOOL_CALLS:
        meter.tool_calls_dropped += 1
        return -1
    meter.tool_calls.append(ToolCall("call", call_id, name, size))
    return len(meter.tool_calls) - 1


def note_finish(meter: Meter, reason: str) -> None:
    """Record why a choice or a response ended."""
    if (known := printable(reason)) and len(meter.finish_reasons) < MAX_FINISH_REASONS:
        meter.finish_reasons.append(known)


_CALLS = (
    "function_call",
    "custom_tool_call",
    "computer_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
)


def _index(value: Any, default: int) -> int:
    return value if type(value) is int else default
