from typing import Any

import pytest

from proxy.openai.expected import Expected, expected_of

SCHEMA = {"type": "object"}
CHAT_TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    ("dialect", "document", "expected"),
    [
        ("chat", {}, Expected()),
        ("chat", {"response_format": {"type": "text"}}, Expected()),
        ("chat", {"response_format": {"type": "json_object"}}, Expected(is_json=True)),
        (
            "chat",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            Expected(is_json=True, schema=SCHEMA),
        ),
        ("chat", {"response_format": 7, "tools": 7, "functions": [7]}, Expected()),
        ("chat", {"tools": [CHAT_TOOL, {"type": "custom"}]}, Expected(functions={"f": SCHEMA})),
        ("chat", {"functions": [{"name": "f"}]}, Expected(functions={"f": None})),
        (
            "responses",
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
            Expected(is_json=True, schema=SCHEMA),
        ),
        (
            "responses",
            {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}, {"type": "web_search"}]},
            Expected(functions={"f": SCHEMA}),
        ),
    ],
)  # fmt: skip
def test_expected_when_asked_for_then_what_the_answer_must_be(dialect: Any, document: Any, expected: Expected) -> None:
    assert expected_of(dialect, document) == expected


def test_schemas_when_none_is_named_then_nothing_has_to_be_judged() -> None:
    assert not Expected(is_json=True, functions={"f": None}).needs_schemas
    assert Expected(functions={"f": SCHEMA}).needs_schemas
    assert Expected(schema=SCHEMA).needs_schemas
