"""Streams made of whole answers, put together again by the official SDK."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.openai.chunks import as_events

CALLS = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}} for n in (1, 2)]
LOGPROBS = {"content": [{"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}], "refusal": None}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def answer(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [
        {"index": number, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": "stop"}
        for number, message in enumerate(messages)
    ]
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "gpt-4o", "service_tier": "default",
        "system_fingerprint": "fp", "choices": choices, "usage": USAGE, **more,
    }  # fmt: skip


def chunks(document: dict[str, Any]) -> list[Any]:
    events = as_events(document)
    assert events is not None and events.endswith(b"data: [DONE]\n\n")
    return [json.loads(event[6:]) for event in events.split(b"\n\n")[:-2]]


def together(document: dict[str, Any]) -> ChatCompletion:
    state: Any = ChatCompletionStreamState()
    for chunk in chunks(document):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return ChatCompletion.model_validate(state.get_final_completion().model_dump(exclude_none=True))


MESSAGES = {
    "text": [{"content": "hello"}],
    "empty text": [{"content": ""}],
    "refusal": [{"content": None, "refusal": "no"}],
    "tools": [{"content": None, "tool_calls": CALLS}],
    "text and tools": [{"content": "so", "tool_calls": CALLS[:1]}],
    "two choices": [{"content": "a"}, {"content": "b"}],
}


@pytest.mark.parametrize("messages", MESSAGES.values(), ids=MESSAGES.keys())
def test_stream_when_put_together_by_the_sdk_then_it_is_the_whole_answer(messages):
    document = answer(*messages)
    wanted = ChatCompletion.model_validate(document).model_dump(exclude_none=True)
    made = together(document).model_dump(exclude_none=True)
    for choice in made["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call["function"].pop("parsed_arguments", None)
            call.pop("index", None)
    assert made == wanted


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_stream_when_texts_are_anything_then_they_come_whole(texts):
    made = chunks(answer(*({"content": text} for text in texts)))
    said = [""] * len(texts)
    for chunk in made:
        for choice in chunk["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == texts


def test_chunks_when_made_then_usage_stands_where_it_does_in_a_stream():
    *others, last = chunks(answer({"content": "x"}))
    assert all(chunk["usage"] is None for chunk in others)
    assert (last["choices"], last["usage"]) == ([], USAGE)
    without = chunks(answer({"content": "x"}, usage=None))
    assert without[-1]["choices"][0]["finish_reason"] == "stop"


def test_chunks_when_choices_have_more_then_it_is_in_them_once():
    document = answer({"content": "x", "reasoning_content": "why", "annotations": []})
    document["choices"][0] |= {"logprobs": LOGPROBS, "content_filter_results": {"hate": {}}}
    opening, reasoning, text, end, _ = (chunk["choices"] for chunk in chunks(document))
    assert opening[0]["delta"] == {"role": "assistant", "content": "", "annotations": []}
    assert (reasoning[0]["delta"], reasoning[0]["logprobs"]) == ({"reasoning_content": "why"}, None)
    assert (text[0]["delta"], text[0]["logprobs"]) == ({"content": "x"}, LOGPROBS)
    assert (end[0]["finish_reason"], end[0]["content_filter_results"]) == ("stop", {"hate": {}})


def test_chunks_of_a_completion_when_made_then_text_and_end():
    choice = {"index": 0, "text": "abc", "logprobs": None, "finish_reason": "stop"}
    first, last, _ = chunks({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": USAGE})
    assert (first["object"], first["choices"][0]["text"], first["choices"][0]["finish_reason"]) == (
        "text_completion", "abc", None,
    )  # fmt: skip
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "stop")


NO_STREAM = {
    "another object": {"object": "response", "choices": []},
    "no object": {"choices": []},
    "no choices": {"object": "chat.completion", "choices": None},
    "choice that is none": {"object": "chat.completion", "choices": [3]},
    "choice without index": {"object": "chat.completion", "choices": [{"message": {}}]},
    "choice without message": {"object": "chat.completion", "choices": [{"index": 0}]},
    "message that is none": {"object": "chat.completion", "choices": [{"index": 0, "message": 3}]},
    "calls that are none": {"object": "chat.completion", "choices": [{"index": 0, "message": {"tool_calls": [1]}}]},
    "sound": {"object": "chat.completion", "choices": [{"index": 0, "message": {"audio": {"id": "a"}}}]},
    "half a pair": {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "\ud83d"}}]},
}


@pytest.mark.parametrize("document", NO_STREAM.values(), ids=NO_STREAM.keys())
def test_events_when_an_answer_has_no_stream_then_none(document):
    assert as_events(document) is None
