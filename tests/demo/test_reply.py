"""Replies: the same for the same request, never a word of the prompt, tools that fit their schema."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.reply import NOTICE, compose, example, read_prompt, strings

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
                "days": {"type": ["integer", "null"]},
                "near": {"type": "object", "properties": {"km": {"type": "number"}}},
            },
        },
    },
}
FLAT = {"type": "function", "name": "get_weather", "parameters": {}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["content", "text", "type"]), inner),
    max_leaves=12,
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_compose_when_any_prompt_then_says_what_it_is_and_quotes_nothing() -> None:
    reply = compose(read_prompt([user("Xyzzy plugh")], None, None), 0, None)
    assert reply.text.startswith(NOTICE)
    assert "11 characters" in reply.text
    assert "Xyzzy" not in reply.text
    assert reply.complete


def test_compose_when_asked_twice_then_the_same() -> None:
    prompt = read_prompt([user("a"), user("b")], None, None)
    assert compose(prompt, 0, None) == compose(prompt, 0, None)
    assert compose(prompt, 1, None).text == compose(prompt, 0, None).text + " (Choice 2.)"


@given(st.integers(1, 60))
def test_compose_when_limited_then_a_beginning_of_the_whole(limit: int) -> None:
    prompt = read_prompt([user("a")], None, None)
    whole, cut = compose(prompt, 0, None), compose(prompt, 0, limit)
    assert whole.text.startswith(cut.text)
    assert len(cut.pieces) == min(limit, len(whole.pieces))
    assert cut.complete == (limit >= len(whole.pieces))


@pytest.mark.parametrize(
    ("text", "choice", "wants"),
    [
        ("hello", None, False),
        ("hello", "auto", False),
        ("hello", "required", True),
        ("hello", {"type": "function", "function": {"name": "get_weather"}}, True),
        ("hello", {"type": "function", "name": "get_weather"}, True),
        ("please use a tool", "auto", True),
        ("get_weather in Oslo", None, True),
        ("please use a tool", "none", False),
    ],
)
@pytest.mark.parametrize("tool", [WEATHER, FLAT], ids=["chat", "responses"])
def test_read_prompt_when_tools_are_offered_then_called_if_asked(
    tool: dict[str, Any], text: str, choice: Any, wants: bool
) -> None:
    prompt = read_prompt([user(text)], [tool], choice)
    assert prompt.wants_tool is wants
    assert compose(prompt, 0, None).kind == ("tool" if wants else "text")


def test_read_prompt_when_the_named_tool_is_second_then_that_one() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    wanted = {"type": "function", "function": {"name": "get_weather"}}
    assert compose(read_prompt([user("x")], [other, WEATHER], wanted), 0, None).tool_name == "get_weather"


@pytest.mark.parametrize("result", [{"role": "tool", "content": "12"}, {"type": "function_call_output", "output": "1"}])
def test_read_prompt_when_the_tool_has_answered_then_text(result: dict[str, str]) -> None:
    assert not read_prompt([user("use a tool"), result], [WEATHER], "required").wants_tool


def test_example_when_schema_is_nested_then_fits() -> None:
    function = WEATHER["function"]
    assert isinstance(function, dict)
    assert example(function["parameters"]) == {"city": "demo", "unit": "celsius", "days": 1, "near": {"km": 1.5}}


def test_example_when_schema_is_endless_then_stops() -> None:
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {"again": schema}
    assert repr(example(schema)).count("again") <= 6


def test_strings_when_parts_are_mixed_then_texts_only() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert list(strings([user("b"), {"role": "user", "content": parts}, "c", 5])) == ["b", "a", "c"]


@given(json_values, json_values, json_values)
def test_read_prompt_when_anything_then_a_reply(items: Any, tools: Any, choice: Any) -> None:
    prompt = read_prompt(items if isinstance(items, list) else [items], tools, choice)
    assert prompt.tokens >= 1
    assert compose(prompt, 0, None).pieces
