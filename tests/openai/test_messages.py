"""Putting an answer together: the same from a whole answer and from every way of streaming it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.openai.messages import Call, Message, MessageReader, whole_messages

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("choices delta message content tool_calls index function custom output item type".split()),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def said_streamed(dialect: Any, documents: list[Any]) -> tuple[Message, ...]:
    reader = MessageReader(dialect)
    for document in documents:
        reader.add(document)
    return reader.said()


ENDS = st.sampled_from([("length", "length"), ("content_filter", "filter"), ("stop", "other"), (None, "")])
CALLS = st.lists(st.tuples(st.text(max_size=4), st.text(max_size=6), st.booleans()), max_size=3)


def as_call(name: str, arguments: str, is_function: bool) -> dict[str, Any]:
    if is_function:
        return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": "c", "type": "custom", "custom": {"name": name, "input": arguments}}


@given(st.data(), st.lists(st.tuples(st.text(max_size=8), st.text(max_size=3), CALLS, ENDS), min_size=1, max_size=3))
def test_said_when_a_chat_is_streamed_in_any_pieces_then_it_is_the_whole(data: Any, spoken: list[Any]) -> None:
    whole, events = [], []
    for index, (text, refusal, calls, (reason, _)) in enumerate(spoken):
        message = {"role": "assistant", "content": text, "refusal": refusal, "tool_calls": [as_call(*c) for c in calls]}
        whole.append({"index": index, "message": message, "finish_reason": reason})
        for member, value in (("content", text), ("refusal", refusal)):
            at = data.draw(st.integers(0, len(value)))
            events += [{"index": index, "delta": {member: part}} for part in (value[:at], value[at:])]
        for place, (name, arguments, is_function) in enumerate(calls):
            at = data.draw(st.integers(0, len(arguments)))
            for part in (as_call(name, arguments[:at], is_function), as_call("", arguments[at:], is_function)):
                events.append({"index": index, "delta": {"tool_calls": [{**part, "index": place}]}})
        events.append({"index": index, "delta": {}, "finish_reason": reason})
    expected = tuple(
        Message(text, refusal, tuple([Call(*call) for call in calls]), end) for text, refusal, calls, (_, end) in spoken
    )
    assert whole_messages("chat", {"choices": whole}) == expected
    assert said_streamed("chat", [{"choices": [event]} for event in events]) == expected


RESPONSE = {
    "status": "completed",
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "Hello"}, {"type": "refusal", "refusal": "no"}],
        },
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
        {"type": "custom_tool_call", "name": "g", "input": "free"},
    ],
}
OF_RESPONSE = Message("Hello", "no", (Call("f", "{}"), Call("g", "free", False)), "other")


def test_said_when_a_response_then_it_is_one_choice() -> None:
    assert whole_messages("responses", RESPONSE) == (OF_RESPONSE,)
    done = {"type": "response.completed", "response": RESPONSE}
    assert said_streamed("responses", [{"type": "response.created", "response": {"output": []}}, done]) == (
        OF_RESPONSE,
    )
    items = [{"type": "response.output_item.done", "item": item} for item in RESPONSE["output"]]
    last = {"type": "response.completed", "response": {"status": "completed"}}
    assert said_streamed("responses", [*items, last]) == (OF_RESPONSE,)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, Message(end="length")),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, Message(end="filter")),
        ({"output": [{"type": "web_search_call"}]}, Message(has_media=True)),
        ({}, Message()),
    ],
)
def test_said_when_a_response_ends_otherwise_then_it_tells(response: Any, expected: Message) -> None:
    assert whole_messages("responses", response) == (expected,)


def test_said_when_spelt_as_it_was_once_then_it_is_understood() -> None:
    message = {
        "content": [{"type": "text", "text": "a"}],
        "function_call": {"name": "f", "arguments": "{}"},
        "audio": {"id": 1},
    }
    choices = [{"message": message}]
    assert whole_messages("chat", {"choices": choices}) == (Message("a", calls=(Call("f", "{}"),), has_media=True),)


@given(JSON)
def test_said_when_anything_comes_then_nothing_raises(document: Any) -> None:
    documents = [one for one in (document if isinstance(document, list) else [document]) if isinstance(one, dict)]
    for one in documents:
        whole_messages("chat", one)
        whole_messages("responses", one)
    said_streamed("chat", documents)
    said_streamed("responses", documents)
    assert whole_messages("chat", None) == ()
