"""Reading streams of every dialect into a meter."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Dialect, Meter, Usage
from proxy.openai.deltas import StreamObserver, has_terminator, has_text
from proxy.openai.sse import Event
from proxy.openai.usage import is_short, unfinished

DONE = Event(None, b"[DONE]")


def event(document: Any, name: bytes | None = None) -> Event:
    return Event(name, json.dumps(document).encode())


def observe(dialect: Dialect, *events: Event) -> Meter:
    meter = Meter()
    observer = StreamObserver(dialect, meter)
    for one in events:
        observer.observe(one)
    return meter


def chunk(content: str | None = None, finish: str | None = None, **members: Any) -> Event:
    choice = {"index": 0, "delta": {"content": content} if content is not None else {}, "finish_reason": finish}
    return event({"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": [choice], "usage": None} | members)


USAGE_CHUNK = event({"id": "x", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})


def test_observe_when_a_chat_streams_then_everything_is_metered() -> None:
    meter = observe("chat", chunk("Hé"), chunk("llo"), chunk(finish="stop"), USAGE_CHUNK, DONE)
    assert (meter.response_id, meter.response_model) == ("chatcmpl-1", "gpt-4o-2024")
    assert (meter.output_text_bytes, meter.finish_reasons) == (6, ["stop"])
    assert meter.usage == Usage(9, 3)
    assert (meter.terminated, meter.events, meter.stream_error) == (True, 5, None)


def test_observe_when_a_response_streams_then_the_tier_at_its_end_counts() -> None:
    usage = {"input_tokens": 9, "output_tokens": 3}
    meter = observe(
        "responses",
        event({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "service_tier": "auto"}}),
        event({"type": "response.completed", "response": {"id": "resp_1", "service_tier": "priority", "usage": usage}}),
    )
    assert (meter.service_tier, meter.usage) == ("priority", Usage(9, 3))


def test_observe_when_a_chat_streams_then_its_first_chunk_tells_the_tier() -> None:
    assert observe("chat", chunk("Hé", service_tier="flex"), chunk("llo")).service_tier == "flex"


def test_observe_when_usage_comes_after_the_terminator_then_it_is_ignored() -> None:
    meter = observe("chat", chunk("a"), DONE, USAGE_CHUNK)
    assert (meter.usage, meter.terminated, meter.events) == (None, True, 3)


def test_observe_when_an_error_tells_figures_then_they_are_all_there_will_be() -> None:
    error = event({"error": {"code": "server_error"}, "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
    meter = observe("chat", chunk("Hello"), error)
    assert (meter.usage, is_short(meter)) == (Usage(9, 3), False)


def figures(sent: int | None, made: int) -> dict[str, Any]:
    return {"usage": {"completion_tokens": made} | ({} if sent is None else {"prompt_tokens": sent})}


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        pytest.param([(9, 1), (9, 2), (9, 3)], Usage(9, 3), id="all so far"),
        pytest.param([(9, 3), (0, 0)], Usage(9, 3), id="then zeros"),
        pytest.param([(9, 1), (0, 1), (0, 1)], Usage(9, 3), id="of the piece"),
        pytest.param([(9, 3), (8, 2)], Usage(9, 3), id="then less"),
        pytest.param([(9, 1), (None, 3)], Usage(9, 3), id="then output alone"),
    ],
)
def test_observe_when_figures_come_several_times_then_none_is_lost(
    told: list[tuple[int | None, int]], usage: Usage
) -> None:
    chunks = [chunk("a", **figures(*each)) for each in told]
    meter = observe("chat", *chunks, chunk(finish="stop"), DONE)
    assert (meter.usage, is_short(meter)) == (usage, False)


STARTED = {
    "id": "msg_1",
    "model": "claude",
    "usage": {"input_tokens": 9, "cache_read_input_tokens": 5, "output_tokens": 1},
}
MESSAGE = [
    event({"type": "message_start", "message": STARTED}),
    event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hé"}}),
    event({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
    event({"type": "content_block_stop", "index": 0}),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
    event({"type": "message_stop"}),
]


def test_observe_when_a_message_streams_then_its_input_is_from_its_start_and_its_output_from_its_end() -> None:
    meter = observe("generic", *MESSAGE)
    assert (meter.response_id, meter.response_model, meter.finish_reasons) == ("msg_1", "claude", ["end_turn"])
    assert (meter.usage, meter.output_text_bytes, meter.terminated) == (Usage(14, 7, 5), 5, True)
    assert not is_short(meter)


def test_observe_when_a_message_is_cut_then_the_figures_of_its_start_are_not_all() -> None:
    meter = observe("generic", *MESSAGE[:4])
    assert (meter.usage, is_short(meter)) == (Usage(14, 1, 5), True)


TOLD = {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}
NOTHING = {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}


@pytest.mark.parametrize(
    ("events", "short"),
    [
        pytest.param((chunk("a", **TOLD), chunk("b")), True, id="torn behind figures"),
        pytest.param((chunk("a", **TOLD),), True, id="torn at figures"),
        pytest.param((chunk("a", **TOLD), chunk("b", **TOLD), DONE), False, id="figures with every chunk"),
        pytest.param((chunk("a", **TOLD), chunk("b"), DONE), True, id="text behind the last figures"),
        pytest.param((chunk("a", **NOTHING), chunk(finish="stop"), USAGE_CHUNK), False, id="zeros until the end"),
        pytest.param((chunk("a"), chunk(finish="stop", **NOTHING), DONE), True, id="zeros"),
        pytest.param((chunk("a"), chunk(finish="stop", **TOLD)), False, id="figures at the end"),
        pytest.param((chunk("a"), USAGE_CHUNK, DONE), False, id="no finish reason"),
    ],
)
def test_observe_when_figures_come_on_the_way_then_they_are_short_unless_all_is_told(
    events: tuple[Event, ...], short: bool
) -> None:
    assert is_short(observe("chat", *events)) is short


def test_observe_when_completions_stream_then_text_counts() -> None:
    meter = observe("completions", event({"choices": [{"index": 0, "text": "abc", "finish_reason": "stop"}]}), DONE)
    assert (meter.output_text_bytes, meter.finish_reasons, meter.terminated) == (3, ["stop"], True)


def test_all_finished_when_only_the_terminator_is_missing_then_true() -> None:
    meter = Meter()
    observer = StreamObserver("chat", meter)
    observer.observe(chunk("a"))
    assert observer.all_finished is False
    observer.observe(chunk(finish="stop"))
    assert (observer.all_finished, meter.terminated) == (True, False)


@pytest.mark.parametrize("dialect", ["chat", "generic", "none"])
def test_observe_when_an_error_is_in_the_stream_then_its_code_is_noted(dialect: Dialect) -> None:
    meter = observe(dialect, event({"error": {"message": "secret prompt", "code": "overloaded"}}))
    assert (meter.stream_error, meter.terminated) == ("overloaded", False)


RESPONSE_EVENTS = (
    event({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "status": "in_progress"}}),
    event({"type": "response.output_text.delta", "delta": "Hé"}),
    event({"type": "response.reasoning_summary_text.delta", "delta": "abc"}),
    event({"type": "response.refusal.delta", "delta": "d"}),
    event({"type": "response.function_call_arguments.delta", "delta": "{}"}),
    event({"type": "response.audio.delta", "delta": "AAAAAAAA"}),
    event({"type": "response.output_text.delta", "delta": 7}),
    event({"type": "response.output_text.done", "text": "Hé"}),
    event(
        {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        }
    ),
)
RESPONSE_USAGE = {"input_tokens": 5, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 2}}


@pytest.mark.parametrize("dialect", ["responses", "generic"])
@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_observe_when_a_response_streams_then_everything_is_metered(dialect: Dialect, kind: str) -> None:
    last = {
        "id": "resp_1",
        "model": "gpt-5",
        "status": kind,
        "usage": RESPONSE_USAGE,
        "conversation": {"id": "conv_1"},
        "output": [{"type": "message", "content": [{"text": "counted before"}]}],
    }
    meter = observe(dialect, *RESPONSE_EVENTS, event({"type": f"response.{kind}", "response": last}))
    assert (meter.response_id, meter.response_model, meter.conversation) == ("resp_1", "gpt-5", "conv_1")
    assert meter.output_text_bytes == 3 + 3 + 1 + 2
    assert [(call.id, call.name, call.arguments_bytes) for call in meter.tool_calls] == [("c", "f", 2)]
    assert meter.usage == Usage(5, 7, reasoning_tokens=2)
    assert (meter.finish_reasons, meter.terminated) == ([kind], True)


def test_observe_when_a_response_is_cut_then_what_came_is_metered() -> None:
    meter = observe("responses", *RESPONSE_EVENTS)
    assert (meter.terminated, meter.usage, meter.response_model, meter.output_text_bytes) == (False, None, "gpt-5", 9)


def test_observe_when_a_response_fails_with_an_error_event_then_its_code_is_noted() -> None:
    error = {"type": "error", "code": "server_error", "message": "m", "param": None, "sequence_number": 3}
    assert observe("responses", event(error)).stream_error == "server_error"
    assert observe("responses", event(error | {"error": {"code": "inner"}})).stream_error == "inner"


def test_observe_when_the_type_stands_only_in_the_event_name_then_it_counts() -> None:
    meter = observe("responses", event({"delta": "abc"}, b"response.output_text.delta"))
    assert meter.output_text_bytes == 3
    assert observe("responses", event({"response": "odd"}, b"response.completed")).terminated


def test_observe_when_the_last_event_is_too_large_to_read_then_its_name_ends_the_stream() -> None:
    assert observe("responses", Event(b"response.completed", b""), USAGE_CHUNK).terminated
    assert not observe("responses", Event(b"response.created", b"")).terminated
    observer = StreamObserver("images", Meter())
    observer.observe(Event(b"image_edit.completed", b""))
    assert observer.all_finished


def test_observe_when_speech_streams_then_usage_of_its_end() -> None:
    done = {"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}}
    meter = observe("audio", event({"type": "speech.audio.delta", "audio": "AAAA"}), event(done))
    assert (meter.usage, meter.output_text_bytes, meter.terminated) == (Usage(3, 9), 0, True)


def test_observe_when_a_transcript_streams_then_text_and_usage() -> None:
    done = {
        "type": "transcript.text.done",
        "text": "abc",
        "usage": {"type": "tokens", "input_tokens": 3, "output_tokens": 1},
    }
    meter = observe("audio", event({"type": "transcript.text.delta", "delta": "abc"}), event(done))
    assert (meter.usage, meter.output_text_bytes, meter.terminated) == (Usage(3, 1, audio_input_tokens=3), 3, True)


def test_observe_when_images_stream_then_the_usage_of_each_adds_up() -> None:
    meter = Meter()
    observer = StreamObserver("images", meter)
    observer.observe(event({"type": "image_generation.partial_image", "b64_json": "AAAA"}))
    assert observer.all_finished is False
    for _ in range(2):
        observer.observe(
            event({"type": "image_generation.completed", "usage": {"input_tokens": 1, "output_tokens": 2}})
        )
    assert (meter.usage, observer.all_finished, meter.terminated) == (Usage(2, 4, image_output_tokens=4), True, False)


def test_observe_when_images_name_no_usage_then_they_are_counted() -> None:
    completed = event({"type": "image_edit.completed"})
    assert observe("images", completed, completed).usage == Usage(images=2)


def test_observe_message_when_a_realtime_session_goes_on_then_usage_adds_up() -> None:
    meter = Meter()
    observer = StreamObserver("realtime", meter)
    done = {
        "type": "response.done",
        "response": {"id": "r", "status": "completed", "usage": {"input_tokens": 2, "output_tokens": 3}},
    }
    for message in (
        {"type": "session.created", "session": {"id": "sess_1", "model": "gpt-realtime"}},
        {"type": "response.output_audio.delta", "delta": "AAAA"},
        {"type": "response.output_audio_transcript.delta", "delta": "ab\ud83d"},
        done,
        done | {"type": "response.completed"},
        {"type": "response.done", "response": None},
    ):
        observer.observe_message(json.dumps(message))
    observer.observe_message("\ud800 not JSON")
    assert (meter.usage, meter.response_model, meter.output_text_bytes) == (Usage(4, 6), "gpt-realtime", 5)
    assert meter.sound_tokens == 1
    assert (meter.terminated, meter.events, meter.finish_reasons) == (False, 7, ["completed", "completed"])


@pytest.mark.parametrize(
    "settings",
    [
        {"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}},
        {"input_audio_transcription": {"model": "gpt-4o-transcribe"}},
    ],
    ids=["now", "beta"],
)
def test_observe_message_when_speech_is_transcribed_then_it_counts_at_the_transcribers_model(settings: Any) -> None:
    meter = Meter()
    observer = StreamObserver("realtime", meter)
    transcribed = {"type": "conversation.item.input_audio_transcription.completed", "transcript": "hello"}
    for message in (
        {"type": "session.created", "session": {"id": "sess_1", "model": "gpt-realtime", "audio": {"input": None}}},
        transcribed | {"usage": {"type": "tokens", "input_tokens": 1, "output_tokens": 1}},
        {"type": "session.updated", "session": settings},
        {"type": "session.updated", "session": {"id": "sess_1"}},
        transcribed | {"usage": {"type": "tokens", "input_tokens": 13, "output_tokens": 9}},
        transcribed | {"usage": {"type": "duration", "seconds": 2.5}},
        transcribed,
        {"type": "response.done", "response": {"usage": {"input_tokens": 2, "output_tokens": 3}}},
    ):
        observer.observe_message(json.dumps(message))
    assert meter.usage_by_model == {
        "gpt-realtime": Usage(3, 4),
        "gpt-4o-transcribe": Usage(13, 9, audio_seconds=2.5),
    }
    assert (meter.usage, meter.output_text_bytes) == (Usage(16, 13, audio_seconds=2.5), 5)


def test_observe_message_when_an_answer_follows_others_then_it_is_known_to_be_unfinished() -> None:
    meter = Meter()
    observer = StreamObserver("realtime", meter)
    transcript = "conversation.item.input_audio_transcription"

    def see(kind: str, **members: Any) -> Usage | None:
        observer.observe_message(json.dumps({"type": kind, **members}))
        return unfinished(meter)

    usage = {"input_tokens": 20, "output_tokens": 3}
    assert see("response.created", response={"model": "small"}) is None
    assert see("response.output_text.delta", delta="abc") is None
    assert see("response.completed", response={"model": "small", "usage": usage}) is None
    assert see(f"{transcript}.delta", delta="hello") == Usage(20, 5)
    assert see(f"{transcript}.completed", transcript="hello", usage={"input_tokens": 9}) is None
    assert see("response.created", response={"model": "large"}) is None
    assert see("response.output_text.delta", delta="abcd") == Usage(20, 4)
    assert see("response.output_audio.delta", delta="AAAA") == Usage(20, 5)
    assert see("response.done", response={"model": "large", "status": "cancelled"}) == Usage(20, 5)
    assert set(meter.usage_by_model) == {"small", "large"}
    assert see("response.completed", response={"model": "large", "usage": usage | {"input_tokens": 70}}) is None
    assert see("response.output_text.delta", delta="ab") == Usage(70, 2)


def test_observe_message_when_responses_of_a_session_use_several_models_then_each_counts_at_its_own() -> None:
    meter = Meter()
    observer = StreamObserver("realtime", meter)
    for model in ("small", "large", "small"):
        response = {"model": model, "status": "completed", "usage": {"input_tokens": 2, "output_tokens": 3}}
        observer.observe_message(json.dumps({"type": "response.completed", "response": response}))
    assert meter.usage_by_model == {"small": Usage(4, 6), "large": Usage(2, 3)}


def test_observe_message_when_answers_differ_in_size_then_the_largest_input_is_known() -> None:
    figures = ({"input_tokens": 5, "output_tokens": 1}, {"input_tokens": 9, "output_tokens": 1}, {"input_tokens": 7})
    meter = observe("realtime", *(event({"type": "response.done", "response": {"usage": each}}) for each in figures))
    assert (meter.largest_input_tokens, meter.usage) == (9, Usage(21, 2))


def test_observe_when_the_dialect_is_unknown_then_any_usage_counts() -> None:
    run = {
        "id": "run_1",
        "model": "gpt-4o",
        "object": "thread.run",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    meter = observe(
        "generic", event(run, b"thread.run.completed"), event({"choices": [{"delta": {"content": "ab"}}]}), DONE
    )
    assert (meter.usage, meter.response_model, meter.output_text_bytes) == (Usage(3, 2), "gpt-4o", 2)


def test_observe_when_usage_was_charged_before_then_only_the_end_is_read() -> None:
    last = event({"type": "response.completed", "response": {"id": "r", "usage": RESPONSE_USAGE}})
    meter = observe("none", *RESPONSE_EVENTS, last)
    assert (meter.usage, meter.output_text_bytes, meter.terminated) == (None, 0, True)


def test_observe_and_strip_when_usage_was_forced_then_it_is_metered_and_gone() -> None:
    meter = Meter()
    observer = StreamObserver("chat", meter)
    kept = observer.observe_and_strip(chunk("a"))
    assert kept is not None and b"usage" not in kept and json.loads(kept)["choices"][0]["delta"] == {"content": "a"}
    assert observer.observe_and_strip(USAGE_CHUNK) is None
    assert observer.observe_and_strip(Event(None, b"not JSON")) == b"not JSON"
    assert observer.observe_and_strip(DONE) == b"[DONE]"
    assert meter.usage == Usage(9, 3)


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_has_terminator_when_a_dialect_is_given_then_only_streams_with_a_known_end(dialect: Dialect) -> None:
    assert has_terminator(dialect) is (dialect in ("chat", "completions", "responses", "audio", "images"))


def of_choice(**delta: Any) -> Event:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def of_response(kind: str, delta: str = "ab") -> Event:
    return event({"type": f"response.{kind}.delta", "delta": delta})


CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}


@pytest.mark.parametrize(
    ("dialect", "one", "holds_text"),
    [
        ("chat", of_choice(content="ab"), True),
        ("chat", of_choice(reasoning_content="ab"), True),
        ("chat", of_choice(refusal="ab"), True),
        ("chat", of_choice(tool_calls=[CALL | {"function": {"arguments": "{"}}]), True),
        ("chat", of_choice(function_call={"arguments": "{"}), True),
        ("chat", of_choice(audio={"transcript": "ab"}), True),
        ("chat", of_choice(tool_calls=[CALL]), False),
        ("chat", of_choice(role="assistant", content=""), False),
        ("chat", USAGE_CHUNK, False),
        ("chat", DONE, False),
        ("completions", event({"choices": [{"index": 0, "text": "ab"}]}), True),
        ("completions", event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}), False),
        ("responses", of_response("output_text"), True),
        ("responses", of_response("reasoning_summary_text"), True),
        ("responses", of_response("refusal"), True),
        ("responses", of_response("function_call_arguments"), True),
        ("responses", of_response("output_text", ""), False),
        ("responses", of_response("audio"), False),
        ("responses", event({"type": "response.output_text.done", "text": "ab"}), False),
        ("realtime", of_response("output_audio_transcript"), True),
        ("realtime", of_response("output_audio"), False),
        ("audio", event({"type": "transcript.text.delta", "delta": "ab"}), True),
        ("generic", of_choice(content="ab"), True),
        ("none", of_choice(content="ab"), False),
    ],
)
def test_observe_when_an_event_holds_generated_text_then_it_counts_once(
    dialect: Dialect, one: Event, holds_text: bool
) -> None:
    assert observe(dialect, one, one).text_deltas == 2 * holds_text


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_has_text_when_a_dialect_is_given_then_false_where_no_event_ever_counts(dialect: Dialect) -> None:
    events = (
        of_choice(content="ab"),
        of_response("output_text"),
        event({"type": "transcript.text.delta", "delta": "a"}),
    )
    assert has_text(dialect) is (observe(dialect, *events).text_deltas > 0)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "model", "choices", "usage", "delta", "response", "session", "error", "item", "output", "status"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["response.completed", "response.done", "response.output_item.done", "x.delta", "error", "transcript.text.delta",
     "speech.audio.done", "image_generation.completed", ""]
)  # fmt: skip


@given(st.sampled_from(get_args(Dialect)), st.lists(st.tuples(KINDS, ANY, ANY), max_size=4), st.binary(max_size=9))
def test_observe_when_events_are_anything_then_it_never_raises(dialect: Dialect, parts: Any, garbage: bytes) -> None:
    documents = [
        {"type": kind, "response": one, "choices": other, "usage": one, "item": other} for kind, one, other in parts
    ]
    meter = observe(
        dialect,
        *(event(document) for document in documents),
        *(event(one) for _, one, _ in parts),
        Event(garbage, garbage),
    )
    assert meter.events == 2 * len(parts) + 1
    assert meter.output_text_bytes >= 0
