"""Ending streams early."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from openai.types.realtime import RealtimeErrorEvent
from openai.types.responses import ResponseIncompleteEvent

from proxy.errors import QuotaExceeded
from proxy.exchange import Dialect
from proxy.openai.stream_end import MOST_CHOICES, MOST_KEPT_BYTES, StreamEnd, end_of, realtime_error

ERROR = QuotaExceeded("Used up.")
SHARED = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "gpt-4o-2024"}


def chunk(*choices: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {**SHARED, **members, "choices": list(choices)}


def says(index: int, text: str = "a", finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish}


def followed(dialect: Dialect, *documents: dict[str, Any], asked_for_usage: bool = False) -> StreamEnd:
    end = end_of(dialect, asked_for_usage=asked_for_usage)
    for document in documents:
        end.follow(json.dumps(document).encode(), document)
    return end


def events(data: bytes | None) -> list[Any]:
    assert data is not None
    assert data.endswith(b"\n\n")
    found = [block.rpartition(b"data: ")[2] for block in data[:-2].split(b"\n\n")]
    return [one.decode() if one == b"[DONE]" else json.loads(one) for one in found]


def test_finish_when_a_chat_streams_then_every_open_choice_reaches_its_length() -> None:
    end = followed("chat", chunk(says(0)), chunk(says(2)), chunk(says(1)), chunk(says(1, "", "stop")), chunk())
    *chunks, done = events(end.finish(chunk(says(0, "more", "stop"))))
    assert done == "[DONE]"
    assert chunks == [
        {**SHARED, "choices": [{"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}]}
        for index in (0, 2)
    ]
    for one in chunks:
        assert ChatCompletionChunk.model_validate(one).choices[0].finish_reason == "length"


def test_finish_when_a_choice_begins_with_the_dropped_chunk_then_it_begins_and_ends() -> None:
    end = followed("chat", chunk(says(0)))
    first, second, _ = events(end.finish(chunk(says(1), says(0))))
    assert (first["choices"][0]["index"], first["choices"][0]["delta"]) == (0, {})
    assert (second["choices"][0]["index"], second["choices"][0]["delta"]) == (1, {"role": "assistant", "content": ""})


def test_finish_when_nothing_came_before_then_the_dropped_chunk_gives_the_names() -> None:
    only, _ = events(end_of("chat", asked_for_usage=False).finish(chunk(says(0), service_tier="default")))
    assert {name: only[name] for name in SHARED} == SHARED
    assert only["service_tier"] == "default"


def test_finish_when_all_choices_have_finished_then_only_the_terminator_is_left() -> None:
    assert events(followed("chat", chunk(says(0, "a", "stop"))).finish(chunk(says(0)))) == ["[DONE]"]


@pytest.mark.parametrize("asked", [False, True], ids=["not asked for", "asked for"])
def test_finish_when_usage_was_asked_for_then_it_is_null_and_never_made_up(asked: bool) -> None:
    for dialect in get_args(Dialect)[:2]:
        only, _ = events(followed(dialect, chunk(says(0)), asked_for_usage=asked).finish({}))
        assert ("usage" in only) is asked
        assert only.get("usage") is None


def test_finish_when_completions_stream_then_text_ends_in_their_shape() -> None:
    named = {**SHARED, "object": "text_completion"}
    end = followed("completions", {**named, "choices": [{"index": 0, "text": "a", "finish_reason": None}]})
    only, done = events(end.finish({}))
    assert only == {**named, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}]}
    assert Completion.model_validate(only).choices[0].finish_reason == "length"
    assert done == "[DONE]"


def test_finish_when_the_first_chunk_has_no_choice_then_its_names_do_not_count() -> None:
    empty = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []}
    only, _ = events(followed("chat", empty, chunk(says(0))).finish({}))
    assert {name: only[name] for name in SHARED} == SHARED


def test_finish_when_names_and_choices_are_without_end_then_what_is_kept_is_bounded() -> None:
    odd = chunk(*(says(index) for index in range(3 * MOST_CHOICES)), id="x" * 100_000, model={"deep": []})
    *chunks, _ = events(followed("chat", odd, chunk(says(10**6, "a", "stop"))).finish(odd))
    assert len(chunks) <= 2 * MOST_CHOICES
    assert "id" not in chunks[0] and "model" not in chunks[0]


RESPONSE = {
    **{"id": "resp_1", "object": "response", "created_at": 17, "status": "in_progress", "model": "gpt-5"},
    **{"output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": None},
    **{"instructions": "Grüße \ud83d", "error": None, "incomplete_details": None, "seed": 2**70},
}


def created(**members: Any) -> dict[str, Any]:
    return {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, **members}}


def delta(number: int | None) -> dict[str, Any]:
    numbered = {} if number is None else {"sequence_number": number}
    return {"type": "response.output_text.delta", "delta": "a", **numbered}


def test_finish_when_a_response_streams_then_it_is_incomplete_as_it_began() -> None:
    data = followed("responses", created(), delta(6)).finish(delta(7))
    assert data is not None and data.startswith(b"event: response.incomplete\n")
    (last,) = events(data)
    assert last == {
        "type": "response.incomplete",
        "sequence_number": 7,
        "response": {
            **RESPONSE,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        },
    }
    del last["response"]["instructions"]
    assert ResponseIncompleteEvent.model_validate(last).response.status == "incomplete"


def test_finish_when_events_have_no_numbers_then_they_are_counted() -> None:
    (last,) = events(followed("responses", created(), delta(None), delta(None)).finish(delta(None)))
    assert last["sequence_number"] == 3


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param((), id="nothing"),
        pytest.param((delta(0),), id="no response object"),
        pytest.param((created(instructions="x" * MOST_KEPT_BYTES),), id="too large a one"),
    ],
)
def test_finish_when_no_response_object_is_at_hand_then_only_an_error_can_end_it(seen: Any) -> None:
    end = followed("responses", *seen)
    assert end.finish(delta(1)) is None
    assert events(end.fail(ERROR))[0]["sequence_number"] == len(seen)


def test_finish_when_the_response_object_is_nested_without_end_then_only_an_error_can_end_it() -> None:
    end = end_of("responses", asked_for_usage=False)
    deep = b'{"response":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    end.follow(deep, {"response": {}})
    assert end.finish({}) is None


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_fail_when_a_stream_must_end_then_an_error_event_says_why(dialect: Dialect) -> None:
    (only,) = events(end_of(dialect, asked_for_usage=True).fail(ERROR))
    assert (only["error"]["code"], only["error"]["message"]) == ("insufficient_quota", "Used up.")


@pytest.mark.parametrize("dialect", [d for d in get_args(Dialect) if d not in ("chat", "completions", "responses")])
def test_finish_when_a_dialect_has_no_early_end_then_none(dialect: Dialect) -> None:
    assert followed(dialect, chunk(says(0))).finish(chunk(says(0))) is None


def test_realtime_error_when_a_session_ends_then_the_sdk_can_read_why() -> None:
    event = RealtimeErrorEvent.model_validate_json(realtime_error(ERROR))
    assert (event.type, event.error.code, event.error.type, event.error.message) == (
        "error", "insufficient_quota", "insufficient_quota", "Used up.",
    )  # fmt: skip


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "choices", "index", "finish_reason", "response", "sequence_number", "model"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(["chat", "completions", "responses"]), st.lists(ANY, max_size=4), ANY, st.booleans())
def test_finish_when_events_are_anything_then_whole_events_or_none(
    dialect: Dialect, parts: Any, last: Any, asked: bool
) -> None:
    documents = [{"choices": part, "response": part, "sequence_number": part} for part in parts]
    end = followed(dialect, *documents, *(part for part in parts if type(part) is dict), asked_for_usage=asked)
    ending = end.finish({"choices": last})
    if ending is not None:
        assert events(ending)
    assert events(end.fail(ERROR))
