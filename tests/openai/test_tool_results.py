"""Tool results that a client sends back."""

from typing import Any

import pytest

from proxy.exchange import MAX_TOOL_CALLS, ToolCall
from proxy.openai.tool_results import tool_results

USER = {"role": "user", "content": "weather?"}
CALLS = {
    "role": "assistant",
    "tool_calls": [
        {"id": "call_1", "function": {"name": "weather", "arguments": "{}"}},
        {"id": "call_2", "custom": {"name": "shell", "input": ""}},
        {"id": "call_3", "function": "odd"},
        "odd",
    ],
}
CALL_ITEM = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}


def result(call_id: Any, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def output(call_id: str, content: Any, kind: str = "function_call_output") -> dict[str, Any]:
    return {"type": kind, "call_id": call_id, "output": content}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, []),
        ({"messages": [USER]}, []),
        ({"messages": "odd", "input": "text"}, []),
        ({"messages": [USER, CALLS, result("call_1", "sunny")]}, [("call_1", "weather", 5)]),
        (
            {"messages": [CALLS, result("call_2", "é"), None, result("call_3", [{"text": "ab"}, 1, {"text": 2}])]},
            [("call_2", "shell", 2), ("call_3", "", 2)],
        ),
        ({"messages": [CALLS, result("call_1", "x"), {"role": "assistant", "content": "done"}, USER]}, []),
        ({"messages": [CALLS, result("call_1", "x"), USER]}, [("call_1", "weather", 1)]),
        ({"messages": [{"role": "function", "name": "old", "content": "x"}]}, [("", "old", 1)]),
        ({"messages": [result(7, 7)]}, [("", "", 0)]),
        ({"input": [USER, CALL_ITEM, output("call_1", "sunny")]}, [("call_1", "weather", 5)]),
        ({"input": [output("call_9", [{"text": "ab"}], "custom_tool_call_output")]}, [("call_9", "", 2)]),
        (
            {"input": [CALL_ITEM, output("call_1", "x"), {"type": "reasoning"}, output("call_2", "yy")]},
            [("call_2", "", 2)],
        ),
        ({"input": [{"type": 5}, {"type": "message", "role": "assistant"}, "odd"]}, []),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_tool_results_when_results_are_new_then_name_id_and_size(document, found) -> None:
    assert tool_results(document) == tuple(ToolCall("result", *one) for one in found)


def test_tool_results_when_there_are_very_many_then_bounded() -> None:
    messages = [result(f"call_{n}", "x") for n in range(MAX_TOOL_CALLS + 50)]
    found = tool_results({"messages": messages})
    assert len(found) == MAX_TOOL_CALLS
    assert found[-1].id == messages[-1]["tool_call_id"]


def test_tool_results_when_names_are_long_then_cut() -> None:
    assert len(tool_results({"messages": [result("c" * 999, "x")]})[0].id) == 256
