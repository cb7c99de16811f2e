import base64
import json
import re
import uuid
from dataclasses import replace
from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ClientDisconnected, InvalidRequest, UpstreamTimeout
from proxy.exchange import Capture, Charge, Delivery, Exchange, Principal, ToolCall, Usage
from proxy.nouns.candidates import Candidate, Rejection
from proxy.openai.operations import match
from proxy.trace import record
from tests.trace.exchanges import MODELS, STARTED, STARTED_AT_MS, begun, finished, planned

ACCOUNTING = {
    "id",
    "created_at",
    "conversation_ref",
    "request_type",
    "operation",
    "user_id",
    "project_id",
    "model",
    "stream",
    "request_bytes",
    "llm_calls",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "usage_source",
    "total_cost",
    "outcome",
    "status",
    "total_duration_ms",
    "upstream_ms",
    "overhead_ms",
    "response_bytes",
    "upstream",
    "response_model",
    "upstream_request_id",
    "first_byte_ms",
    "quota",
}
DETAILS = {"method", "path", "routing_decisions", "tool_calls", "error_info", "phases", "client", "policy"}


@given(st.integers(0, 2**48 - 1))
def test_trace_id_for_any_time_is_a_uuid_of_version_7_that_holds_it(now_ms: int) -> None:
    made = record.trace_id(now_ms)
    parsed = uuid.UUID(made)
    assert (str(parsed), parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert record.created_at_ms(made) == now_ms


def test_trace_ids_of_one_millisecond_are_all_different() -> None:
    assert len({record.trace_id(STARTED_AT_MS) for _ in range(10_000)}) == 10_000


def test_created_at_keeps_every_millisecond() -> None:
    for ms in range(STARTED_AT_MS, STARTED_AT_MS + 1000):
        moment = record.created_at(record.trace_id(ms))
        assert moment.microsecond == ms % 1000 * 1000


def test_final_of_a_finished_exchange_has_every_column_and_exact_figures() -> None:
    x = finished(conversation="thread-9", tool_results=(ToolCall("result", "call_0", "search", 900),))
    row = json.loads(record.final(x))
    assert set(row) == ACCOUNTING | DETAILS
    assert row["id"] == x.trace_id
    assert row["created_at"] == "2026-05-28T20:26:40.123000+00:00"
    assert row["llm_calls"] == [
        {
            "index": 0,
            "upstream": "default",
            "model": "gpt-4o",
            "responseModel": "gpt-4o-2024-08-06",
            "status": 200,
            "requestId": "req_1",
            "startedMs": 1.0,
            "firstByteMs": 209.0,
            "durationMs": 899.0,
            "inputTokens": 100,
            "cachedInputTokens": 5,
            "cacheWriteTokens": 0,
            "outputTokens": 20,
            "reasoningTokens": 7,
            "usageSource": "provider",
            "cost": "0.000123456",
            "priced": True,
            "responseId": "chatcmpl-1",
            "finishReasons": ["tool_calls"],
            "responseBytes": 4000,
            "events": 20,
            "error": None,
        }
    ]
    assert row["tool_calls"] == [
        {"kind": "result", "id": "call_0", "name": "search", "bytes": 900, "llmCall": None},
        {"kind": "call", "id": "call_1", "name": "get_weather", "bytes": 17, "llmCall": 0},
    ]
    assert row["routing_decisions"] == [
        {"reason": "the only upstream", "candidates": [{"upstream": "default", "model": "gpt-4o"}]}
    ]
    assert (row["total_cost"], row["usage_source"]) == ("0.000123456", "provider")
    assert (row["total_duration_ms"], row["upstream_ms"], row["overhead_ms"]) == (900.5, 899.0, 1.5)
    assert (row["first_byte_ms"], row["status"], row["outcome"]) == (211.0, 200, "ok")
    assert row["phases"] == {"identify": 0.1, "parse": 0.4, "relay": 899.5}
    assert row["client"] == {
        "userAgent": "OpenAI/Python 2.1.0",
        "peer": "127.0.0.1",
        "sdk": "python/2.1.0",
        "retryCount": "1",
    }
    assert (row["conversation_ref"], row["error_info"]) == ("thread-9", None)


def test_final_without_tracing_keeps_only_what_accounting_needs() -> None:
    row = json.loads(record.final(finished(), tracing=False))
    assert set(row) == ACCOUNTING
    assert not {"finishReasons", "error", "events"} & set(row["llm_calls"][0])
    assert row["llm_calls"][0]["cost"] == "0.000123456"


def test_no_record_holds_prompt_query_credential_or_unnamed_header() -> None:
    x = finished()
    for body in (record.intent(x, record.begin(x)), record.final(x), record.final(x, tracing=False)):
        assert b"canary" not in body


def _stopped(phase: int) -> Exchange:
    """Return an exchange in which only the first `phase` groups of slots are filled."""
    whole, x = finished(), begun()
    steps = ("principal", "request", "plan", "attempts", "charges", "delivery", "outcome", "ended")
    for name in steps[:phase]:
        setattr(x, name, getattr(whole, name))
    return x


@pytest.mark.parametrize("phase", range(9))
def test_final_of_an_exchange_stopped_in_any_phase_is_complete(phase: int) -> None:
    row = json.loads(record.final(_stopped(phase)))
    assert row["outcome"] == ("ok" if phase >= 7 else "internal_error")
    assert row["total_duration_ms"] >= 0
    assert row["total_cost"] == ("0.000123456" if phase >= 5 else "0.000000000")
    assert len(row["llm_calls"]) == (phase >= 4)
    json.loads(record.intent(_stopped(phase), record.begin(_stopped(phase))))


@pytest.mark.parametrize("conversation", [None, "conv_1"])
def test_final_when_it_continues_an_intent_then_it_is_the_same_and_no_member_is_there_twice(conversation) -> None:
    x = finished()
    x.request = replace(x.request, conversation=conversation)
    head = record.begin(x)
    assert record.final(x, head) == record.final(x)
    for body in (record.final(x, head), record.intent(x, head)):
        members = json.loads(body, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
        assert len(set(members)) == len(members)


def test_begin_when_a_caller_repeats_itself_then_only_id_time_and_size_change() -> None:
    first, second = finished(), finished()
    second.trace_id, second.started_at_ms = record.trace_id(STARTED_AT_MS + 61_005), STARTED_AT_MS + 61_005
    second.request = replace(second.request, request_bytes=4)
    rows = [json.loads(record.begin(x) + b"}") for x in (first, second)]
    assert [row.pop("id") for row in rows] == [first.trace_id, second.trace_id]
    assert [datetime.fromisoformat(row.pop("created_at")) for row in rows] == [
        record.created_at(first.trace_id), record.created_at(second.trace_id)
    ]  # fmt: skip
    assert (rows[0].pop("request_bytes"), rows[1].pop("request_bytes")) == (first.request.request_bytes, 4)
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("change", "member"),
    [
        (lambda x: setattr(x, "principal", replace(x.principal, user_id="another")), "user_id"),
        (lambda x: setattr(x, "principal", replace(x.principal, project_id="another")), "project_id"),
        (lambda x: setattr(x, "request", replace(x.request, model="another")), "model"),
        (lambda x: setattr(x, "request", replace(x.request, stream=not x.request.stream)), "stream"),
        (lambda x: setattr(x, "inbound", replace(x.inbound, path="/v1/another")), "path"),
        (lambda x: setattr(x, "cache", "hit"), "routing_decisions"),
        (lambda x: setattr(x, "plan", replace(x.plan, complexity="high")), "routing_decisions"),
        (
            lambda x: setattr(x, "plan", replace(x.plan, rejected=(Rejection("u", "m", None, "w"),))),
            "routing_decisions",
        ),
        (lambda x: setattr(x, "plan", replace(x.plan, reason="another")), "routing_decisions"),
    ],
)
def test_begin_when_something_else_is_asked_or_decided_then_it_says_so(change, member) -> None:
    usual, other = finished(), finished()
    before = json.loads(record.begin(usual) + b"}")
    other.trace_id = usual.trace_id
    change(other)
    after = json.loads(record.begin(other) + b"}")
    assert {name for name in before if before[name] != after[name]} == {member}


def test_credentials_when_named_in_place_of_a_model_are_masked_in_every_part_of_a_record_every_time() -> None:
    ours, shaped = "our-provider-key-0123", "sk-" + "a1" * 12
    for _ in range(2):
        x = finished(model=f"{ours} {shaped}")
        attempt, meter = x.attempts[0], x.attempts[0].meter
        meter.response_model = attempt.request_id = meter.conversation = meter.response_id = f"{shaped}/{ours}"
        meter.service_tier = attempt.failure = x.inbound.peer = f"{ours}/{shaped}"
        meter.finish_reasons, meter.tool_calls = [shaped, ours], [ToolCall("call", shaped, ours, 3)]
        attempt.candidate = Candidate(f"{ours} {shaped}", f"{shaped} {ours}")
        head = record.begin(x, secrets=(ours.encode(),))
        for body in (
            record.intent(x, head, secrets=(ours.encode(),)),
            record.final(x, head, secrets=(ours.encode(),)),
            record.final(x, secrets=(ours.encode(),)),
        ):
            assert ours.encode() not in body
            assert shaped.encode() not in body
            assert json.loads(body)["model"] == "*" * len(ours) + " " + "*" * len(shaped)


@pytest.mark.parametrize("before", ["\n", "\t", "\0", "\x1f", '"', "\\", "%20", "%2F", "\ud83d", "\xe9", "/"])
def test_credentials_when_behind_what_is_escaped_are_masked(before: str) -> None:
    key = "sk-" + "a1" * 12
    x = finished(model=f"m{before}{key}")
    x.inbound = replace(x.inbound, path=f"/v1/models/{before}{key}")
    x.attempts[0].meter.tool_calls = [ToolCall("call", f"{before}{key}", f"name{before}{key}", 3)]
    for body in (record.begin(x), record.intent(x, record.begin(x)), record.final(x)):
        assert key.encode() not in body
        assert b"*" * len(key) in body


def test_final_of_a_cancelled_attempt_measures_to_the_last_known_moment() -> None:
    x = finished()
    x.ended = x.attempts[0].ended = None
    x.marks.clear()
    assert json.loads(record.final(x))["total_duration_ms"] == 210.0


def test_status_when_nothing_was_sent_yet_is_that_of_the_error() -> None:
    x = begun()
    x.outcome, x.ended = "rejected", STARTED + 0.001
    x.error = InvalidRequest("No such thing.", code="invalid_path", param="path", status=404)
    row = json.loads(record.final(x))
    assert row["status"] == 404
    assert row["error_info"] == {
        "code": "invalid_path",
        "type": "invalid_request_error",
        "message": "No such thing.",
        "source": "client",
        "param": "path",
    }


def test_status_after_the_commit_point_is_what_the_client_saw() -> None:
    x = finished()
    x.error, x.outcome = ClientDisconnected("The client left."), "client_abort"
    row = json.loads(record.final(x))
    assert (row["status"], row["error_info"]["code"]) == (200, "client_disconnected")


def test_first_byte_of_an_answer_that_waits_for_its_record_is_the_arrival() -> None:
    x = finished()
    x.delivery = Delivery()
    assert json.loads(record.final(x))["first_byte_ms"] == 210.0


def test_response_bytes_of_a_whole_answer_count_the_piece_that_leaves_last() -> None:
    x = finished()
    assert json.loads(record.final(x))["response_bytes"] == 3900, "its usage was taken out: only what was sent counts"
    x.request = replace(x.request, strip_usage=False)
    assert json.loads(record.final(x))["response_bytes"] == 4000
    x.error = ClientDisconnected("The client left.")
    assert json.loads(record.final(x))["response_bytes"] == 3900


def test_conversation_that_only_the_answer_names_is_kept() -> None:
    x = finished()
    x.attempts[0].meter.conversation = "conv_1"
    assert json.loads(record.final(x))["conversation_ref"] == "conv_1"


def test_final_of_a_response_tells_what_it_continues_and_its_own_id_and_an_interrupted_one_the_former() -> None:
    x = finished(operation=match("POST", "/v1/responses", False), continues="resp_1", response_id="resp_2")
    told = json.loads(record.final(x))
    assert (told["conversation_ref"], told["previous_response_id"], told["response_id"]) == (
        "resp_1",
        "resp_1",
        "resp_2",
    )
    charge = Charge(Usage(), "estimated", 0, True)
    left = json.loads(record.interrupted(record.intent(x, record.begin(x)), lambda *_: charge))
    assert (left["previous_response_id"], "response_id" in left) == ("resp_1", False)
    assert not {"previous_response_id", "response_id"} & json.loads(record.final(finished())).keys(), "of a chat"


def test_client_without_sdk_headers_has_no_sdk() -> None:
    x = begun()
    x.inbound = replace(x.inbound, fields={b"user-agent": b"curl/8 \xff"})
    assert json.loads(record.final(x))["client"] == {"userAgent": "curl/8 �", "peer": "127.0.0.1"}


def test_interrupted_billable_intent_is_charged_by_the_estimate() -> None:
    seen = []

    def estimate(model: str | None, text_bytes: int) -> Charge:
        seen.append((model, text_bytes))
        return Charge(Usage(input_tokens=300), "estimated", 750_000, True)

    x = planned()
    row = json.loads(record.interrupted(record.intent(x, record.begin(x)), estimate))
    assert seen == [("gpt-4o", len(x.request.body))]
    assert (row["outcome"], row["usage_source"], row["total_cost"]) == ("interrupted", "estimated", "0.000750000")
    assert (row["id"], row["user_id"], row["input_tokens"]) == (x.trace_id, "alice", 300)
    assert row["llm_calls"][0]["upstream"] == "default"
    assert row["error_info"]["code"] == "interrupted"
    assert set(row) <= ACCOUNTING | DETAILS


def test_interrupted_upload_without_text_is_never_free() -> None:
    x = planned()
    x.request = replace(x.request, body=None, document=None, input_text_bytes=lambda: 0)
    sizes = []

    def estimate(_model: str | None, text_bytes: int) -> Charge:
        sizes.append(text_bytes)
        return Charge(Usage(input_tokens=1), "estimated", 1, True)

    record.interrupted(record.intent(x, record.begin(x)), estimate)
    assert sizes == [1]


def test_interrupted_intent_of_a_free_operation_costs_nothing() -> None:
    def estimate(_model: str | None, _text_bytes: int) -> Charge:
        raise AssertionError("nothing to estimate")

    x = planned(operation=MODELS)
    row = json.loads(record.interrupted(record.intent(x, record.begin(x)), estimate))
    assert (row["total_cost"], row["usage_source"]) == ("0.000000000", "none")
    assert "llm_calls" not in row


def test_interrupted_intent_without_a_plan_names_no_upstream() -> None:
    x = begun()
    x.principal = Principal("bob", "p", "default")
    row = json.loads(
        record.interrupted(record.intent(x, record.begin(x)), lambda *_: Charge(Usage(1), "estimated", 1, False))
    )
    assert (row["upstream"], row["user_id"]) == (None, "bob")


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("half \ud83d", "half \ufffd"),
        ("pair \ud83d\ude00", "pair 😀"),
        ("back\\u0000slash", "back\\u0000slash"),
    ],
    ids=["nul", "lone-surrogate", "split-pair", "escaped-text"],
)
def test_text_that_postgresql_refuses_is_made_storable(text: str, stored: str) -> None:
    x = finished(model=text)
    row = json.loads(record.final(x))
    assert row["model"] == stored
    assert json.loads(record.intent(x, record.begin(x)))["model"] == stored


def test_figures_beyond_bigint_are_clamped_to_it() -> None:
    x = finished(usage=Usage(input_tokens=10**30, output_tokens=2**63), cost_nanos=10**30)
    row = json.loads(record.final(x))
    assert (row["input_tokens"], row["output_tokens"]) == (2**63 - 1, 2**63 - 1)
    assert row["total_cost"] == "99999999999.999999999"


_ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@given(_ANY_TEXT, _ANY_TEXT, _ANY_TEXT, st.integers(0, 2**80), st.integers(0, 2**90))
def test_final_of_any_strings_and_figures_is_json_that_jsonb_takes(
    model: str, tool: str, finish: str, tokens: int, nanos: int
) -> None:
    x = finished(model=model, usage=Usage(input_tokens=tokens), cost_nanos=nanos)
    x.attempts[0].meter.tool_calls = [ToolCall("call", tool, tool, 1)]
    x.attempts[0].meter.finish_reasons = [finish]
    x.attempts[0].error = UpstreamTimeout(tool)
    body = record.final(x)
    row = orjson.loads(body)  # refuses lone surrogates, as PostgreSQL does
    assert not re.search(rb"(?<!\\)(\\\\)*\\u0000", body)
    assert row["input_tokens"] == min(tokens, 2**63 - 1)


def test_content_without_capture_is_none() -> None:
    x = finished()
    assert record.content(x, "full") is None
    x.capture = Capture(100)
    assert record.content(x, "full") is None


def test_content_in_full_holds_the_bytes_as_they_are() -> None:
    x = finished()
    x.capture = Capture(12, request=b'{"a":"\xff\0"}')
    x.capture.add(b"0123456789abcdef")
    row = json.loads(record.content(x, "full") or b"")
    assert base64.b64decode(row["request"]) == b'{"a":"\xff\0"}'
    assert base64.b64decode(row["response"]) == b"0123456789ab"
    assert (row["truncated"], row["mode"], row["trace_id"]) == (True, "full", x.trace_id)


def test_content_beyond_the_limit_is_cut_and_marked() -> None:
    x = finished()
    x.capture = Capture(8, request=b'{"prompt":"canary"}')
    whole = json.loads(record.content(x, "full") or b"")
    assert (base64.b64decode(whole["request"]), whole["truncated"]) == (b'{"prompt', True)
    redacted = json.loads(record.content(x, "redacted") or b"")
    assert (base64.b64decode(redacted["request"]), redacted["response"]) == (b"[19 bytes]", "")


def test_content_redacted_holds_no_text() -> None:
    x = finished()
    x.capture = Capture(1000)
    x.capture.add(b'data: {"choices":[{"delta":{"content":"canary"}}]}\n\ndata: [DONE]\n\n')
    row = json.loads(record.content(x, "redacted") or b"")
    assert row["request"] is None
    assert b"canary" not in base64.b64decode(row["response"])
    x.capture = Capture(1000, request=b'{"prompt":"canary"}')
    row = json.loads(record.content(x, "redacted") or b"")
    assert base64.b64decode(row["request"]) == b'{"prompt":"[6 characters]"}'
