"""What every answer says about itself."""

from typing import Any

import pytest

from proxy.exchange import Dialect, Meter, Usage
from proxy.openai.facts import (
    add_to_usage,
    note_error,
    note_media_usage,
    note_usage,
    read_identity,
    read_output,
    read_response,
    read_unit_usage,
)


def test_read_identity_when_events_repeat_it_then_the_first_stays() -> None:
    meter = Meter()
    read_identity({"id": 5, "model": None}, meter)
    assert (meter.response_id, meter.response_model) == (None, None)
    read_identity({"id": "a" * 300, "model": "m1"}, meter)
    read_identity({"id": "b", "model": "m2"}, meter)
    assert (meter.response_id, meter.response_model) == ("a" * 256, "m1")


@pytest.mark.parametrize(
    ("told", "noted"),
    [("priority", "priority"), (None, "auto"), (7, None), ("", None), ("x" * 33, "auto")],
)
def test_tier_when_the_end_of_an_answer_tells_another_than_its_beginning_then_that_counts(told, noted) -> None:
    meter = Meter()
    read_identity({"service_tier": "auto"}, meter)
    note_usage({"usage": {"input_tokens": 1, "output_tokens": 1}, "service_tier": told}, meter)
    assert meter.service_tier == noted


def test_note_usage_when_the_latest_cannot_be_believed_then_the_last_good_one_stays() -> None:
    meter = Meter()
    for value, tokens in (
        ({"input_tokens": 1}, 1),
        (None, 1),
        ("odd", 1),
        ({"input_tokens": -1}, 1),
        ({"input_tokens": 2}, 2),
    ):
        note_usage({"usage": value}, meter)
        assert meter.usage == Usage(tokens)


def test_add_to_usage_when_there_are_several_answers_then_the_sum() -> None:
    meter = Meter()
    added = [
        add_to_usage({"usage": usage}, model, meter)
        for usage, model in (
            ({"input_tokens": 1}, "a"),
            ("odd", "a"),
            ({"input_tokens": 2}, None),
            ({"input_tokens": 4}, "a"),
        )
    ]
    assert added == [True, False, True, True]
    assert (meter.usage, meter.usage_by_model) == (Usage(7), {"a": Usage(5), None: Usage(2)})


TOKENS = {"input_tokens": 5, "output_tokens": 7}


@pytest.mark.parametrize(
    ("dialect", "details", "usage"),
    [
        ("images", {}, Usage(5, 7, image_output_tokens=7)),
        ("images", {"output_tokens_details": None}, Usage(5, 7, image_output_tokens=7)),
        (
            "images",
            {"output_tokens_details": {"text_tokens": 1, "image_tokens": 6}},
            Usage(5, 7, image_output_tokens=6),
        ),
        ("audio", {}, Usage(5, 7, audio_input_tokens=5)),
        ("audio", {"input_token_details": {"text_tokens": 1, "audio_tokens": 4}}, Usage(5, 7, audio_input_tokens=4)),
        ("audio", {"type": "duration", "seconds": 3}, Usage(audio_seconds=3.0)),
        ("chat", {}, Usage(5, 7)),
    ],
)
def test_note_media_usage_when_details_are_missing_then_the_tokens_are_of_the_endpoints_kind(
    dialect: Dialect, details: dict[str, Any], usage: Usage
) -> None:
    meter = Meter()
    note_media_usage({"usage": TOKENS | details}, dialect, meter)
    note_media_usage({}, dialect, meter)
    note_media_usage({"usage": "odd"}, "chat", meter)
    assert meter.usage == usage


@pytest.mark.parametrize(
    ("error", "noted"),
    [
        ({"code": "rate_limit_exceeded", "type": "requests"}, "rate_limit_exceeded"),
        ({"code": None, "type": "server_error"}, "server_error"),
        ({"code": 502}, "502"),
        ({"code": "the prompt was: hello", "type": "x" * 65}, "error"),
        ("text", "error"),
        ({}, "error"),
    ],
)
def test_note_error_when_an_error_is_given_then_only_a_code_is_kept(error: Any, noted: str) -> None:
    meter = Meter()
    note_error(error, meter)
    assert meter.stream_error == noted


@pytest.mark.parametrize(
    ("response", "reasons", "error", "conversation"),
    [
        ({"status": "completed", "conversation": {"id": "conv_1"}}, ["completed"], None, "conv_1"),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            ["max_output_tokens"],
            None,
            None,
        ),
        (
            {"status": "failed", "error": {"code": "server_error"}, "conversation": "odd"},
            ["failed"],
            "server_error",
            None,
        ),
        ({"status": 5, "incomplete_details": {"reason": 5}, "conversation": {"id": 5}}, [], None, None),
    ],
)
def test_read_response_when_it_has_ended_then_how(response, reasons, error, conversation) -> None:
    meter = Meter()
    read_response(response, meter)
    assert (meter.finish_reasons, meter.stream_error, meter.conversation) == (reasons, error, conversation)


def test_read_output_when_it_came_whole_then_text_and_calls_count() -> None:
    meter = Meter()
    read_output(
        {"output": [{"type": "message", "content": [{"text": "ab"}]}, {"type": "function_call", "name": "f"}, 5]}, meter
    )
    read_output({"output": "odd"}, meter)
    assert (meter.output_text_bytes, [one.name for one in meter.tool_calls]) == (2, ["f"])


@pytest.mark.parametrize(
    ("document", "dialect", "usage"),
    [
        ({"duration": 4.5}, "audio", Usage(audio_seconds=4.5)),
        ({"duration": "4.5"}, "audio", None),
        ({"data": [{}, {}]}, "images", Usage(images=2)),
        ({"data": 5}, "images", None),
        ({"data": [{}]}, "embeddings", None),
    ],
)
def test_read_unit_usage_when_no_tokens_are_named_then_units(document, dialect, usage) -> None:
    meter = Meter()
    read_unit_usage(document, dialect, meter)
    assert meter.usage == usage
