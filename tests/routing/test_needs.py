import json

import pytest

from proxy.config.routing import Complexity
from proxy.config.schema import Limits
from proxy.errors import InvalidRequest
from proxy.exchange import ParsedRequest
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.intake import slim
from proxy.routing.needs import Hints, read_hints, read_needs

IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
SETTINGS = Complexity()


def parsed(document, path="/v1/chat/completions") -> ParsedRequest:
    body = json.dumps(document).encode()
    return parse_json(body, match("POST", path, False), limits=Limits(), force_stream_usage=False)


def chat(content="hello", **more) -> ParsedRequest:
    return parsed({"model": "auto", "messages": [{"role": "user", "content": content}], **more})


BODIES = {
    "plain": (chat(), set()),
    "tools": (chat(tools=[{"type": "function"}]), {"tools"}),
    "no tools": (chat(tools=[]), set()),
    "functions": (chat(functions=[{"name": "f"}]), {"tools"}),
    "image": (chat([{"type": "text", "text": "what?"}, IMAGE]), {"vision"}),
    "image in responses": (parsed({"input": [{"content": [{"type": "input_image"}]}]}, "/v1/responses"), {"vision"}),
    "schema": (chat(response_format={"type": "json_schema", "json_schema": {}}), {"json_schema"}),
    "JSON without schema": (chat(response_format={"type": "json_object"}), set()),
    "schema in responses": (parsed({"text": {"format": {"type": "json_schema"}}}, "/v1/responses"), {"json_schema"}),
    "reasoning": (chat(reasoning_effort="high"), {"reasoning"}),
    "wrong types": (parsed({"messages": 3, "response_format": [], "text": 1}), set()),
}


@pytest.mark.parametrize("case", BODIES.values(), ids=BODIES.keys())
def test_body_shows_what_it_needs(case):
    request, needed = case
    assert read_needs(request, SETTINGS).capabilities == needed


def test_body_that_is_not_kept_decoded_is_judged_by_its_bytes():
    whole = chat([{"type": "text", "text": "x" * 70_000}, IMAGE], tools=[1], response_format={"type": "json_schema"})
    slimmed = slim(whole)
    assert slimmed.document is None
    needs = read_needs(slimmed, SETTINGS)
    assert needs.capabilities == {"tools", "vision", "json_schema"}
    assert needs.tokens >= 3000


COMPLEXITIES = {
    "short": ("What is the capital of France?", {}, "low"),
    "code": ("Fix this:\n```python\ndef f(): pass\n```", {}, "medium"),
    "reasoning": ("Prove the theorem step by step.", {}, "medium"),
    "code and reasoning": ("Refactor this:\n```js\nfoo();\n```", {}, "high"),
    "tools alone": ("hi", {"tools": [1]}, "low"),
    "tools and code": ("import os\nos.exit()", {"tools": [1]}, "medium"),
    "long": ("word " * 2000, {}, "low"),
    "very long": ("word " * 20_000, {}, "medium"),
    "code at the end": ("word " * 4000 + "```", {}, "medium"),
    "code in the middle": ("word " * 500 + "```" + "word " * 2000, {}, "low"),
}


@pytest.mark.parametrize("case", COMPLEXITIES.values(), ids=COMPLEXITIES.keys())
def test_complexity_follows_the_points_of_what_is_found(case):
    text, more, level = case
    assert read_needs(chat(text, **more), SETTINGS).complexity == level


@pytest.mark.parametrize("settings", [Complexity(high_points=2, medium_points=1)])
def test_complexity_follows_the_configured_thresholds(settings):
    assert read_needs(chat("import os"), settings).complexity == "high"
    assert read_needs(chat("hello"), settings).complexity == "low"


@pytest.mark.parametrize("messages", [[], [3], "x", None, [{"content": None}], [{"content": [3, {"text": 4}]}]])
def test_odd_messages_are_of_low_complexity(messages):
    assert read_needs(parsed({"messages": messages}), SETTINGS).complexity == "low"


def test_tokens_hold_the_input_and_the_answer_that_was_asked_for():
    assert read_needs(chat("x" * 300, max_tokens=1000), SETTINGS).tokens >= 1100


@pytest.mark.parametrize(
    ("fields", "hints"),
    [
        ({}, Hints()),
        ({b"x-sidegate-layer": b" l2 "}, Hints(layer="L2")),
        ({b"x-sidegate-quality": b"Critical"}, Hints(quality="critical")),
        ({b"x-sidegate-needs": b"vision, code"}, Hints(needs=frozenset({"vision", "code"}))),
        ({b"x-sidegate-needs": b" "}, Hints()),
    ],
)
def test_hints_are_read_from_headers(fields, hints):
    assert read_hints(fields) == hints


@pytest.mark.parametrize("field", [b"x-sidegate-layer", b"x-sidegate-quality", b"x-sidegate-needs"])
def test_hint_with_an_unknown_value_is_refused(field):
    with pytest.raises(InvalidRequest) as caught:
        read_hints({field: b"best\xff"})
    assert (caught.value.code, caught.value.param) == ("invalid_header", field.decode().title())
