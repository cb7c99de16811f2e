"""What a model says in choices and items, counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import MAX_TOOL_CALLS, Meter, ToolCall
from proxy.openai.choices import (
    MAX_FINISH_REASONS,
    ChoiceReader,
    note_finish,
    output_item_bytes,
    read_output_item,
    text_bytes,
)


def read(*pieces: Any) -> tuple[Meter, ChoiceReader]:
    meter = Meter()
    reader = ChoiceReader(meter)
    for choices in pieces:
        reader.read(choices)
    return meter, reader


def delta(index: int = 0, finish: str | None = None, **members: Any) -> list[dict[str, Any]]:
    return [{"index": index, "delta": members, "finish_reason": finish}]


def call(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("members", "size"),
    [
        ({"content": "hé"}, 3),
        ({"role": "assistant", "content": ""}, 0),
        ({"content": None, "refusal": "no"}, 2),
        ({"reasoning_content": "abc"}, 3),
        ({"audio": "odd", "tool_calls": "odd", "function_call": "odd"}, 0),
        ({"content": None, "reasoning": "abcd"}, 4),
        ({"role": "a", "reasoning": "abcd", "reasoning_content": "abcd"}, 4),
        ({"role": "a", "audio": {"transcript": "abc", "data": "AAAA"}}, 3),
        ({"role": "a", "function_call": {"name": "f", "arguments": "{}"}}, 2),
        ({"role": "a", "tool_calls": [call(0, "c", "f", "{}"), call(1, "d", "g", "{ }")]}, 5),
        ({"role": "a", "tool_calls": [{"index": 0, "custom": {"name": "f", "input": "abc"}}]}, 3),
        ({"content": [{"type": "text", "text": "ab"}, {"type": "refusal", "refusal": "c"}, 5]}, 3),
    ],
)
def test_read_when_text_comes_in_any_channel_then_it_counts(members: dict[str, Any], size: int) -> None:
    assert read(delta(**members))[0].output_text_bytes == size
    assert read([{"message": members}])[0].output_text_bytes == size


def test_read_when_there_are_many_choices_then_all_count() -> None:
    meter, reader = read(delta(0, content="ab"), delta(1, content="c"), [{"index": 2, "text": "def"}])
    assert meter.output_text_bytes == 6
    assert reader.all_finished is False


def test_all_finished_when_every_begun_choice_has_its_reason_then_true() -> None:
    meter, reader = read([])
    assert reader.all_finished is False
    for piece, finished in (
        (delta(0, content="a"), False),
        (delta(1, content="b"), False),
        (delta(1, "stop"), False),
        (delta(0, "length"), True),
        (delta(0), True),
        (delta(0, "length"), True),
    ):
        reader.read(piece)
        assert reader.all_finished is finished
    assert meter.finish_reasons == ["stop", "length"]


def test_read_when_a_tool_call_comes_in_pieces_then_it_is_one_call() -> None:
    meter, _ = read(
        delta(role="assistant", tool_calls=[call(0, "call_1", "weather", "")]),
        delta(0, role="x", tool_calls=[call(0, None, None, '{"a":')]),
        delta(1, role="x", tool_calls=[call(0, "call_2", "other", "{}")]),
        delta(0, role="x", tool_calls=[call(0, None, None, "1}"), call(1, "call_3", None, None)]),
        delta(0, role="x", tool_calls=[call(1, "call_3", "late", "x")]),
        delta(0, role="x", tool_calls=[{"index": 0}]),
    )
    assert meter.tool_calls == [
        ToolCall("call", "call_1", "weather", 7),
        ToolCall("call", "call_2", "other", 2),
        ToolCall("call", "call_3", "late", 1),
    ]


def test_read_when_a_provider_numbers_no_calls_then_ids_tell_them_apart() -> None:
    meter, _ = read(
        delta(role="x", tool_calls=[call(None, "a", "f", "{}"), call(None, "b", "g", "{}")]),
        delta(role="x", tool_calls=[call(0, "c", "h", "{}")]),
    )
    assert [(one.id, one.name) for one in meter.tool_calls] == [("a", "f"), ("b", "g"), ("c", "h")]


def test_read_when_the_old_function_call_comes_in_pieces_then_it_is_one_call() -> None:
    meter, _ = read(
        delta(role="x", function_call={"name": "f", "arguments": "{"}),
        delta(role="x", function_call={"arguments": "}"}),
    )
    assert meter.tool_calls == [ToolCall("call", "", "f", 2)]


def test_read_when_calls_are_very_many_then_the_rest_is_only_counted() -> None:
    meter, reader = read(delta(role="x", tool_calls=[call(n, f"c{n}", "f", "") for n in range(MAX_TOOL_CALLS + 3)]))
    reader.read(delta(role="x", tool_calls=[call(MAX_TOOL_CALLS, None, None, "{}")]))
    reader.read(delta(role="x", tool_calls=[call(MAX_TOOL_CALLS, "new", None, "{}")]))
    assert (len(meter.tool_calls), meter.tool_calls_dropped) == (MAX_TOOL_CALLS, 3)
    assert meter.output_text_bytes == 4


def test_read_when_choices_and_names_are_absurd_then_bounded() -> None:
    meter, _ = read(*(delta(n, "s" * 999) for n in range(MAX_FINISH_REASONS + 9)))
    assert len(meter.finish_reasons) == MAX_FINISH_REASONS
    assert len(meter.finish_reasons[0]) == 256


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "custom",
                    "arguments",
                    "id",
                    "name",
                    "finish_reason",
                    "function_call",
                    "audio",
                    "transcript",
                    "text",
                    "refusal",
                    "reasoning",
                    "type",
                    "summary",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(ANY, ANY)
def test_read_when_it_is_anything_then_it_never_raises(value: Any, other: Any) -> None:
    meter, _ = read(value, [value], [{"delta": value}], [{"delta": {"tool_calls": [value, other], "role": 1}}])
    assert meter.output_text_bytes >= 0
    read_output_item(value, meter)
    assert output_item_bytes(value) >= 0
    assert text_bytes(value) >= 0


@pytest.mark.parametrize(
    ("item", "calls", "size"),
    [
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, [ToolCall("call", "c", "f", 2)], 2),
        ({"type": "custom_tool_call", "id": "i", "name": "f", "input": "abc"}, [ToolCall("call", "i", "f", 3)], 3),
        ({"type": "message", "content": [{"type": "output_text", "text": "abc"}]}, [], 3),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "ab"}]}, [], 2),
        ({"type": "image_generation_call", "result": "AAAA"}, [], 0),
        (None, [], 0),
    ],
)
def test_read_output_item_when_it_is_a_call_then_it_is_noted(item: Any, calls: list[ToolCall], size: int) -> None:
    meter = Meter()
    read_output_item(item, meter)
    assert (meter.tool_calls, output_item_bytes(item)) == (calls, size)


def test_note_finish_when_there_are_very_many_then_bounded() -> None:
    meter = Meter()
    for _ in range(MAX_FINISH_REASONS + 1):
        note_finish(meter, "stop")
    assert len(meter.finish_reasons) == MAX_FINISH_REASONS
