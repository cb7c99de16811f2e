"""What is wrong with an answer: one table, and that nothing is found in what was made to be right."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.routing import Escalation
from proxy.openai.expected import Expected
from proxy.openai.json_schema import Unjudged, conforms
from proxy.openai.messages import Call, Message
from proxy.routing.checks import WORTH, weakness_of

SETTINGS = Escalation(schema_steps=2000)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ANY, JSON, TYPED = Expected(), Expected(is_json=True), Expected(is_json=True, schema=CITY)
TOOLS = Expected(functions={"weather": CITY, "time": None})


def call(arguments: str, name: str = "weather") -> Message:
    return Message(calls=(Call(name, arguments),), end="other")


CASES: dict[str, tuple[tuple[Message, ...], Expected, str | None]] = {
    "text": ((Message("Hello"),), ANY, None),
    "no choice": ((), ANY, "empty"),
    "blank": ((Message(" \n"),), ANY, "empty"),
    "one of two is empty": ((Message("Hello"), Message("")), ANY, "empty"),
    "sound": ((Message(has_media=True),), ANY, None),
    "refusal": ((Message("x", refusal="no"),), ANY, "refused"),
    "filter": ((Message("", end="filter"),), ANY, "refused"),
    "refusal in words": ((Message("I’m sorry, but I can't help with that."),), ANY, "refused"),
    "refusal in other words": ((Message("I am sorry, but I CANNOT do that."),), ANY, "refused"),
    "words of a refusal in a long answer": (
        (Message("I'm sorry, but I can't: " + "because. " * 200),),
        ANY,
        None,
    ),
    "refusal where JSON was asked for": ((Message("Sorry, but I can't."),), TYPED, "refused"),
    "length": ((Message("Hello", end="length"),), ANY, "cut"),
    "length, all of it reasoning": ((Message("", end="length"),), ANY, "cut"),
    "JSON object": ((Message(' {"a": 1}'),), JSON, None),
    "JSON of another kind": ((Message("[1]"),), JSON, "invalid_json"),
    "no JSON": ((Message("{'a': 1}"),), JSON, "invalid_json"),
    "fenced JSON": ((Message('```json\n{"city": "Paris"}\n```'),), TYPED, "invalid_json"),
    "valid": ((Message('{"city": "Paris"}'),), TYPED, None),
    "invalid": ((Message('{"town": "Paris"}'),), TYPED, "invalid_json"),
    "null is a value": ((Message("null"),), Expected(is_json=True, schema={"type": "null"}), None),
    "call": ((call('{"city": "Paris"}'),), TOOLS, None),
    "call where JSON was asked for": (
        (call('{"city": "Paris"}'),),
        Expected(is_json=True, schema={"type": "null"}, functions=TOOLS.functions),
        None,
    ),
    "call without arguments": ((call("", "time"),), TOOLS, None),
    "call without a schema": ((call('{"x": 1}', "time"),), TOOLS, None),
    "call of nothing known": ((call("{}", "weather2"),), TOOLS, "invalid_tool_call"),
    "call with wrong arguments": ((call('{"city": 7}'),), TOOLS, "invalid_tool_call"),
    "call with broken arguments": ((call('{"city": '),), TOOLS, "invalid_tool_call"),
    "call with a list": ((call("[]", "time"),), TOOLS, "invalid_tool_call"),
    "call of another kind": ((Message(calls=(Call("shell", "ls", False),)),), TOOLS, None),
    "schema that nobody can judge": (
        (Message("7"),),
        Expected(is_json=True, schema={"$ref": "http://x/y"}),
        None,
    ),
}


@pytest.mark.parametrize(("said", "expected", "found"), CASES.values(), ids=CASES.keys())
def test_weakness_when_an_answer_is_looked_at_then_one_word(said: Any, expected: Expected, found: str | None) -> None:
    assert weakness_of(said, expected, SETTINGS) == found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
SCHEMAS = st.sampled_from([CITY, {"type": "array", "maxItems": 2}, {"not": {"type": "string"}}, {"minimum": 2}, {}])


@given(SCHEMAS, VALUES)
def test_weakness_when_json_is_asked_for_then_exactly_what_the_schema_says(schema: Any, value: Any) -> None:
    said = (Message(orjson.dumps(value).decode(), end="other"),)
    expected = Expected(is_json=True, schema=schema)
    is_valid = conforms(schema, value, 10_000)
    assert weakness_of(said, expected, SETTINGS) == (None if is_valid else "invalid_json")


@given(st.text(), st.text(), st.sampled_from(["length", "filter", "other", ""]), st.booleans())
def test_weakness_when_anything_is_said_then_a_known_word(text: str, arguments: str, end: Any, calls: bool) -> None:
    said = Message(text, calls=(Call("weather", arguments),) if calls else (), end=end)
    assert weakness_of((said,), Expected(is_json=True, functions={"weather": CITY}), SETTINGS) in WORTH


def test_schema_when_it_takes_too_long_then_it_says_nothing() -> None:
    schema = {"items": {"anyOf": [{"const": n} for n in range(100)]}}
    value = [99] * 100
    with pytest.raises(Unjudged):
        conforms(schema, value, SETTINGS.schema_steps)
    said = (Message(orjson.dumps(value).decode()),)
    assert weakness_of(said, Expected(is_json=True, schema=schema), SETTINGS) is None
