"""Output maxima: what requests name, what models have, and how a maximum is lowered."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.schema import Limits
from proxy.openai.operations import match
from proxy.openai.output_maximum import capped, choices, lowered, model_limit, requested
from proxy.openai.request import parse_json

CHAT = match("POST", "/v1/chat/completions", False)
GARBAGE = [None, 0, -1, True, 1.5, "7", [7], {"a": 7}, 10**30]


@pytest.mark.parametrize(
    ("document", "dialect", "model", "maximum"),
    [
        ({"max_tokens": 7}, "chat", "m", 7),
        ({"max_completion_tokens": 7}, "chat", "m", 7),
        ({"max_completion_tokens": 7, "max_tokens": 9}, "chat", "m", 9),
        ({"max_completion_tokens": 9, "max_tokens": None}, "chat", "m", 9),
        ({"max_output_tokens": 7}, "chat", "m", None),
        ({"max_output_tokens": 7}, "responses", "m", 7),
        ({"max_tokens": 7}, "responses", "m", None),
        ({"max_tokens": 7}, "completions", "m", 7),
        ({}, "completions", "gpt-3.5-turbo-instruct", 16),
        ({}, "completions", "ft:davinci-002:org::id", 16),
        ({}, "completions", "somebody's", None),
        ({"max_tokens": 7}, "embeddings", "m", None),
        ({}, "chat", None, None),
    ],
)
def test_requested_when_members_are_given_then_those_of_the_dialect_count(document, dialect, model, maximum):
    assert requested(document, dialect, model) == maximum


@pytest.mark.parametrize("value", GARBAGE[:-1], ids=repr)
def test_requested_when_a_maximum_is_no_positive_number_then_it_counts_as_absent(value):
    assert requested({"max_tokens": value}, "chat", "m") is None


@pytest.mark.parametrize(
    ("document", "dialect", "count"),
    [
        ({}, "chat", 1),
        ({"n": 3}, "chat", 3),
        ({"n": 3}, "responses", 1),
        ({"n": 2, "best_of": 5}, "completions", 5),
        ({"n": 2, "prompt": ["a", "b", "c"]}, "completions", 6),
        ({"prompt": [[1, 2], [3]]}, "completions", 2),
        ({"prompt": [1, 2, 3]}, "completions", 1),
        ({"prompt": []}, "completions", 1),
        *(({"n": value, "best_of": value}, "completions", 1) for value in GARBAGE[:-1]),
    ],
    ids=repr,
)
def test_choices_when_several_are_asked_for_then_all_that_are_generated_count(document, dialect, count):
    assert choices(document, dialect) == count


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("gpt-4o-2024-08-06", 16_384),
        ("gpt-4.1-nano", 32_768),
        ("gpt-4-0613", 8192),
        ("gpt-4-turbo-preview", 4096),
        ("gpt-3.5-turbo-0125", 4096),
        ("o1-mini-2024-09-12", 65_536),
        ("o3-mini", 100_000),
        ("gpt-5-mini", 128_000),
        ("gpt-5.1-codex-max", 128_000),
        ("gpt-5-pro-2025-10-06", 272_000),
        ("anthropic/claude-3-5-sonnet-20241022", 8192),
        ("gemini-2.5-pro", 65_536),
        ("mistral-large", None),
        (None, None),
    ],
)
def test_model_limit_when_a_family_is_known_then_its_limit(model, limit):
    assert model_limit(model) == limit


@pytest.mark.parametrize(
    ("document", "dialect", "added"),
    [
        ({"model": "gpt-4o"}, "chat", {"max_tokens": 5}),
        ({"model": "o3-mini"}, "chat", {"max_completion_tokens": 5}),
        ({"model": "openai/gpt-5.1"}, "chat", {"max_completion_tokens": 5}),
        ({"model": "gpt-oss-120b"}, "chat", {"max_tokens": 5}),
        ({"model": "o3", "max_tokens": 9}, "chat", {"max_tokens": 5}),
        ({"model": "m", "max_completion_tokens": 9}, "chat", {"max_completion_tokens": 5}),
        ({"max_completion_tokens": 9, "max_tokens": 9}, "chat", {"max_completion_tokens": 5, "max_tokens": 5}),
        ({"model": "o3", "max_tokens": None}, "chat", {"max_completion_tokens": 5}),
        ({"model": "m", "max_tokens": None}, "chat", {"max_tokens": 5}),
        ({"model": "m"}, "completions", {"max_tokens": 5}),
        ({"model": "m", "max_tokens": 9}, "completions", {"max_tokens": 5}),
        ({"model": "m"}, "responses", {"max_output_tokens": 5}),
        ({"model": 7}, "chat", {"max_tokens": 5}),
        ({}, "chat", {"max_tokens": 5}),
    ],
    ids=repr,
)
def test_lowered_when_a_maximum_is_written_then_into_the_member_that_counts(document, dialect, added):
    assert json.loads(lowered(json.dumps(document).encode(), document, dialect, 5)) == document | added


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.dictionaries(st.sampled_from(["model", "messages", "seed", "max_tokens", "n", "\ud83d", 'x"']), VALUES)


@settings(deadline=None)
@given(MEMBERS, st.booleans(), st.sampled_from(["chat", "completions", "responses"]), st.integers(1, 10**6))
def test_lowered_when_a_body_is_anything_then_only_the_maximum_changes(document, ascii_only, dialect, per_choice):
    text = json.dumps(document, ensure_ascii=ascii_only or "\\ud" in json.dumps(document))
    changed = json.loads(lowered(text.encode(), document, dialect, per_choice))
    named = {"chat": {"max_completion_tokens", "max_tokens"}, "completions": {"max_tokens"}}.get(
        dialect, {"max_output_tokens"}
    )
    written = {name: value for name, value in changed.items() if name in named and value is not None}
    assert written and set(written.values()) == {per_choice}
    assert requested(changed, dialect, "m") == per_choice

    def others(members):
        return {name: value for name, value in members.items() if name not in named}

    assert others(changed) == others(document)


@pytest.mark.parametrize(
    ("members", "total", "per_choice"),
    [({}, 100, 100), ({"n": 3}, 100, 33), ({"n": 8}, 3, 1)],
    ids=["one answer", "several", "more than tokens"],
)
@pytest.mark.parametrize("kept", [True, False], ids=["decoded", "body alone"])
def test_capped_when_there_are_choices_then_they_share_the_tokens(members, total, per_choice, kept):
    body = json.dumps({"model": "m", "seed": 10**30, **members}).encode()
    request = parse_json(body, CHAT, limits=Limits(), force_stream_usage=False)
    if not kept:
        request.document = None
    sent = capped(request, "chat", total)
    assert json.loads(sent.body or b"") == {**json.loads(body), "max_tokens": per_choice}
    assert (sent.model, sent.stream, request.body) == ("m", False, body)


@pytest.mark.parametrize(
    ("model", "member"), [("gpt-5-mini", "max_completion_tokens"), ("gpt-4o", "max_tokens"), (None, "max_tokens")]
)
def test_capped_when_the_provider_gets_another_model_then_the_member_is_the_one_that_it_understands(model, member):
    request = parse_json(b'{"model":"auto"}', CHAT, limits=Limits(), force_stream_usage=False)
    sent = capped(request, "chat", 7, model=model)
    assert json.loads(sent.body or b"") == {"model": "auto", member: 7}
