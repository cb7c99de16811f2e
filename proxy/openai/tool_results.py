"""Tool results that a client sends back: names, ids and sizes, never the text.

Clients repeat the whole history with every turn. A result counts if it is new, that is, after the last message of the
model, so that each is traced once; the name of its function is taken from the call earlier in the same body.

Source: OpenAI API reference: `role: tool` messages of chat, `function_call_output` items of responses.
"""

from collections.abc import Mapping
from typing import Any

from proxy.exchange import MAX_TOOL_CALLS, ToolCall
from proxy.openai.documents import printable
from proxy.openai.pieces import utf8_len


def tool_results(document: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the new tool results of a request body, at most `MAX_TOOL_CALLS`."""
    if type(items := document.get("messages")) is list:
        fresh = _fresh_messages(items)
    elif type(items := document.get("input")) is list:
        fresh = _fresh_items(items)
    else:
        return ()
    return _described(items, fresh[:MAX_TOOL_CALLS][::-1]) if fresh else ()


def _fresh_messages(messages: list[Any]) -> list[dict[str, Any]]:
    """Walk back from the end to the model's last turn; the newest comes first."""
    found = []
    for message in reversed(messages):
        if type(message) is dict:
            role = message.get("role")
            if role == "assistant":
                break
            if role in ("tool", "function"):
                found.append(message)
    return found


def _fresh_items(items: list[Any]) -> list[dict[str, Any]]:
    """Like `_fresh_messages`, for the items of a response."""
    found = []
    for item in reversed(items):
        if type(item) is dict:
            kind = item.get("type")
            if kind == "reasoning" or item.get("role") == "assistant":
                break
            if type(kind) is str and kind.endswith("_call_output"):
                found.append(item)
    return found


def _described(items: list[Any], results: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    names = _called_names(items)
    return tuple(_described_one(result, names) for result in results)


def _described_one(result: dict[str, Any], names: Mapping[str, str]) -> ToolCall:
    call_id = printable(result.get("tool_call_id") or result.get("call_id"))
    name = names.get(call_id) or printable(result.get("name"))
    return ToolCall("result", call_id, name, _size(result.get("content", result.get("output"))))


def _called_names(items: list[Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for item in items:
        if type(item) is not dict:
            continue
        if type(calls := item.get("tool_calls")) is list:
            for call in calls:
                if type(call) is dict:
                    body = call.get("function") or call.get("custom")
                    names[printable(call.get("id"))] = printable(body.get("name")) if type(body) is dict else ""
        elif "call_id" in item and "name" in item:
            names[printable(item["call_id"])] = printable(item["name"])
    return names


def _size(content: Any) -> int:
    """Return the bytes of a result: a string, or a list of parts with a text each."""
    if type(content) is str:
        return utf8_len(content)
    if type(content) is not list:
        return 0
    texts = (part.get("text") for part in content if type(part) is dict)
    return sum(utf8_len(text) for text in texts if type(text) is str)
