"""Weak and disputed answers before the real proxy: the promised calls, one answer, and every call is paid for."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from openai import AsyncOpenAI

from tests.fakes.cast import Cast, Line, accept, chat, reject
from tests.fakes.judge import eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import CLOSE, SILENCE, head, whole
from tests.fakes.wire import Reply, Wire, exchange, post
from tests.policy.secrets import HIGH

LAYERS = """
L0: [{model: a0, capabilities: [tools, json_schema]}, {model: b0, capabilities: [tools]}, {model: c0}]
L1: [{model: a1, capabilities: [tools, json_schema]}]
L2: [{model: a2, capabilities: [tools, json_schema]}]
"""
PRICES = {f"{name}{layer}": 10**layer for name in "abc" for layer in range(3)}
"""Dollars per million tokens, input and output."""
SECOND_OPINION = "x-sidegate-cross-check: on"
PROJECTS: dict[str, Any] = {
    "plain": {},
    "escalates": {"features": {"enableAutoEscalate": True}},
    "low": {"features": {"enableAutoEscalate": True}, "routing": {"maxLayer": "L0"}},
    "cheap": {"features": {"enableAutoEscalate": True}, "routing": {"maxCostPerRequest": 0.004}},
    "poor": {"features": {"enableAutoEscalate": True}, "quota": {"maxCostDaily": 0.002}},
    "reviews": {"features": {"enableCrossCheck": True}},
    "both": {"features": {"enableCrossCheck": True, "enableAutoEscalate": True}},
    "forbids": {"features": {"enableCrossCheck": True}, "security": {"outputActions": {"command": "block"}}},
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORM = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
GOOD = Line("A good answer that took some thought.", tokens=(100, 30))


async def describe_projects(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for name, config in PROJECTS.items():
            await connection.execute(
                "INSERT INTO projects (id, organization_id, name, config) VALUES ($1, 'default-org', $1, $2)",
                name,
                json.dumps(config),
            )
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def assured(
    provider: Provider, session_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sidegate]:
    asyncio.run(describe_projects(session_database_url))
    directory = tmp_path_factory.mktemp("assured")
    (directory / "layers.yaml").write_text(LAYERS)
    settings = {
        "SIDEGATE__ROUTING__LAYERS_FILE": str(directory / "layers.yaml"),
        "SIDEGATE__PRICES__OVERRIDES": json.dumps({name: {"input": p, "output": p} for name, p in PRICES.items()}),
        "SIDEGATE__ROUTING__CROSS_CHECK__REVIEW_S": "0.5",
        "SIDEGATE__ROUTING__ESCALATION__ANSWER_BYTES": "20000",
        "SIDEGATE__ROUTING__ESCALATION__HOLD_S": "1",
        "SIDEGATE__ROUTING__BREAKER__FAILURES": "1000",
        "SIDEGATE__JOURNAL__BATCH_DELAY_MS": "10",
    }
    running = Sidegate(directory, provider.base_url, session_database_url, settings).start()
    yield running
    running.stop()


class Asker:
    """Asks in the name of a project, in front of a cast."""

    def __init__(self, provider: Provider, assured: Sidegate, case: str) -> None:
        self._provider = provider
        self._assured = assured
        self._case = case

    async def __call__(
        self, cast: Cast, project: str, *headers: str, path: str = "/v1/chat/completions", **members: Any
    ) -> Reply:
        self._provider.on(self._case, cast)
        said = {"messages": [{"role": "user", "content": "Say it."}]} if "chat" in path else {"input": "Say it."}
        body = json.dumps({"model": "auto", "max_tokens": 200, **said, **members}).encode()
        identity = f"X-Sidegate-Project: {project}"
        return await exchange(self._assured.address, post(path, body, identity, *headers, case=self._case))

    def trace(self, reply: Reply, cast: Cast) -> dict[str, Any]:
        """Return the trace, of which holds: its calls are the provider's, and its cost is their sum."""
        trace = self._assured.trace(reply.trace_id)
        calls = trace["llmCalls"]
        assert [call["model"] for call in calls] == cast.order
        assert not any(cast.left.values()), cast.left
        billed = [(one.model, one.input_tokens + one.output_tokens) for one in self._provider.billed(self._case)]
        dollars = sum(PRICES[model] * tokens for model, tokens in billed) / 1_000_000
        assert trace["totalCost"] == pytest.approx(sum(call["cost"] for call in calls)) == pytest.approx(dollars)
        assert trace["inputTokens"] + trace["outputTokens"] == sum(tokens for _, tokens in billed)
        assert reply.value("x-sidegate-attempts") == str(len(calls))
        return trace


@pytest.fixture
def ask(provider: Provider, assured: Sidegate, case: str) -> Asker:
    return Asker(provider, assured, case)


def whys(trace: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(call["why"], call["failure"]) for call in trace["llmCalls"]]


WEAK: dict[str, tuple[Line, dict[str, Any]]] = {
    "empty": (Line(""), {}),
    "refused": (Line(None, refusal="No."), {}),
    "cut": (Line("Once upon a", "length"), {}),
    "invalid_json": (Line('{"n": "one"}'), {"response_format": FORM}),
    "invalid_tool_call": (Line(None, "tool_calls", calls=(("f", '{"n": 1.5}'),)), {"tools": [TOOL]}),
}
BETTER = {"invalid_json": Line('{"n": 1}'), "invalid_tool_call": Line(None, "tool_calls", calls=(("f", '{"n": 1}'),))}


@pytest.mark.parametrize("weakness", WEAK)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answer_when_it_is_weak_then_a_layer_above_answers_byte_for_byte(
    ask: Asker, weakness: str, stream: bool
) -> None:
    line, members = WEAK[weakness]
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    cast = Cast(a0=[line], a1=[BETTER.get(weakness, GOOD)])
    reply = await ask(cast, "escalates", **members, **options)
    assert (reply.status, reply.ending, reply.body) == (200, "complete", cast.answers[1])
    assert reply.value("content-type") == ("text/event-stream" if stream else "application/json")
    assert reply.value("x-sidegate-check") == "passed"
    assert reply.value("x-sidegate-escalated") == f"L0>L1; because={weakness}"
    assert (reply.value("x-sidegate-layer"), reply.value("x-sidegate-model")) == ("L1", "a1")
    trace = ask.trace(reply, cast)
    assert whys(trace) == [("first", weakness), ("escalate", None)]
    assert [call["check"] for call in trace["llmCalls"]] == [weakness, "passed"]
    assert (trace["outcome"], trace["responseModel"]) == ("ok", "a1")
    decision, check, escalation = trace["routingDecisions"]
    assert decision["layer"] == "L0"
    assert check == {"kind": "check", "result": "passed", "because": None}
    assert escalation == {"kind": "escalation", "from": "L0", "to": "L1", "because": weakness}


async def test_stream_when_nobody_asked_for_usage_then_the_answer_has_none_and_is_billed_all_the_same(
    ask: Asker,
) -> None:
    cast = Cast(a0=[Line("")], a1=[GOOD])
    reply = await ask(cast, "escalates", stream=True)
    assert b"usage" not in reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert said(reply.body, stream=True) == GOOD.text
    ask.trace(reply, cast)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_response_when_it_is_weak_then_a_layer_above_answers(ask: Asker, stream: bool) -> None:
    cast = Cast(a0=[Line("Once", "length")], a1=[GOOD])
    reply = await ask(cast, "escalates", path="/v1/responses", stream=stream)
    assert (reply.status, reply.body) == (200, cast.answers[1])
    assert whys(ask.trace(reply, cast)) == [("first", "cut"), ("escalate", None)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answer_when_it_is_good_then_one_call(ask: Asker, stream: bool) -> None:
    cast = Cast(a0=[GOOD])
    reply = await ask(cast, "escalates", stream=stream)
    assert (reply.status, reply.value("x-sidegate-check"), reply.value("x-sidegate-escalated")) == (200, "passed", None)
    assert ask.trace(reply, cast)["llmCalls"][0]["check"] == "passed"


async def test_answer_when_every_layer_is_weak_then_the_best_is_delivered_and_says_why(ask: Asker) -> None:
    cast = Cast(a0=[Line("")], a1=[Line("Half of", "length")], a2=[Line(None, refusal="No.")])
    reply = await ask(cast, "escalates")
    assert reply.body == cast.answers[1]
    assert reply.value("x-sidegate-check") == "cut; because=max_escalations"
    assert reply.value("x-sidegate-escalated") == "L0>L1; because=empty, L1>L2; because=cut"
    assert reply.value("x-sidegate-model") == "a1"
    trace = ask.trace(reply, cast)
    assert whys(trace) == [("first", "empty"), ("escalate", None), ("escalate", "refused")]
    assert trace["responseModel"] == "a1"


@pytest.mark.parametrize(
    ("project", "because", "members"),
    [
        ("low", "max_layer", {}),
        ("cheap", "max_cost", {}),
        ("cheap", "max_cost", {"max_tokens": 2000}),
        ("escalates", "no_layer_above", {"model": "L2"}),
        ("poor", "quota", {}),
    ],
)
async def test_answer_when_it_may_not_be_asked_again_then_it_is_delivered_and_says_why(
    ask: Asker, project: str, because: str, members: dict[str, Any]
) -> None:
    cast = Cast(**{members.get("model", "L0").replace("L", "a"): [Line("Half of", "length", tokens=(1500, 150))]})
    reply = await ask(cast, project, **members)
    assert (reply.status, reply.value("x-sidegate-check")) == (200, f"cut; because={because}")
    assert whys(ask.trace(reply, cast)) == [("first", None)]


NOT_OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "a real model": ("escalates", {"model": "a0"}),
    "feature off": ("plain", {}),
    "completions": ("escalates", {"path": "/v1/completions", "prompt": "Say it."}),
}


@pytest.mark.parametrize(("project", "members"), NOT_OURS.values(), ids=NOT_OURS)
async def test_answer_when_it_is_not_ours_to_judge_then_it_passes(
    ask: Asker, project: str, members: dict[str, Any]
) -> None:
    cast = Cast(a0=[Line("")])
    reply = await ask(cast, project, **members)
    assert (reply.status, reply.value("x-sidegate-check"), cast.order) == (200, None, ["a0"])


UNCHECKED: dict[str, tuple[Line, str]] = {
    "too large": (Line("x" * 30_000), "too_large"),
    "slow": (Line(steps=(head("200 OK", "Content-Length: 2") + b"{", 1.3, b"}")), "too_slow"),
    "no JSON": (Line(steps=(whole(b"hi", content_type="text/plain"),)), "unreadable"),
}


@pytest.mark.parametrize(("line", "because"), UNCHECKED.values(), ids=UNCHECKED)
async def test_answer_when_it_cannot_be_held_then_it_passes_unchecked(ask: Asker, line: Line, because: str) -> None:
    cast = Cast(a0=[line])
    reply = await ask(cast, "escalates")
    assert (reply.status, reply.ending) == (200, "complete")
    assert reply.value("x-sidegate-check") == f"unchecked; because={because}"
    assert reply.body in (*cast.answers, b"{}", b"hi")


async def test_stream_when_it_breaks_off_then_a_layer_above_answers(ask: Asker) -> None:
    half = b'data: {"choices":[{"index":0,"delta":{"content":"Once"}}]}\n\n'
    cast = Cast(a0=[Line(steps=(head(content_type="text/event-stream") + half, CLOSE))], a1=[GOOD])
    reply = await ask(cast, "escalates", stream=True)
    assert (reply.status, reply.value("x-sidegate-escalated")) == (200, "L0>L1; because=broken")
    assert reply.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"], ids=["chat", "responses"])
async def test_review_when_it_accepts_then_the_answer_stands(ask: Asker, path: str, stream: bool) -> None:
    cast = Cast(a0=[GOOD], b0=[accept()])
    reply = await ask(cast, "reviews", SECOND_OPINION, path=path, stream=stream)
    assert (reply.status, reply.value("x-sidegate-cross-check")) == (200, "agreed")
    assert reply.value("x-sidegate-model") == "a0"
    assert (b"verdict" in reply.body, b"good" in reply.body or b" good" in reply.body) == (
        False,
        not stream or "resp" in path,
    )
    trace = ask.trace(reply, cast)
    assert whys(trace) == [("first", None), ("review", None)]
    assert (trace["llmCalls"][1]["check"], trace["responseModel"], trace["outcome"]) == ("accept", "a0", "ok")
    assert trace["routingDecisions"][-1] == {"kind": "cross_check", "result": "agreed", "because": None}
    asked = json.dumps(cast.asked[1][1])
    assert "Say it." in asked
    assert "took some thought" in asked
    assert "stream" not in cast.asked[1][1]


async def test_review_when_a_third_disagrees_with_it_then_the_answer_stands_two_to_one(ask: Asker) -> None:
    cast = Cast(a0=[GOOD], b0=[reject("too short")], c0=[accept()])
    reply = await ask(cast, "reviews", SECOND_OPINION)
    assert (reply.body, reply.value("x-sidegate-cross-check")) == (cast.answers[0], "arbitrated")
    assert whys(ask.trace(reply, cast)) == [("first", None), ("review", None), ("arbitrate", None)]
    assert "too short" in json.dumps(cast.asked[2][1])


@pytest.mark.parametrize("project", ["reviews", "both"])
async def test_review_when_a_third_agrees_with_it_then_a_layer_above_answers(ask: Asker, project: str) -> None:
    cast = Cast(a0=[GOOD], b0=[reject()], c0=[reject()], a1=[Line("Better.")])
    reply = await ask(cast, project, SECOND_OPINION, stream=True)
    assert reply.value("x-sidegate-cross-check") == "escalated"
    assert reply.value("x-sidegate-escalated") == "L0>L1; because=disputed"
    assert reply.value("x-sidegate-model") == "a1"
    trace = ask.trace(reply, cast)
    assert whys(trace) == [("first", "disputed"), ("review", None), ("arbitrate", None), ("escalate", None)]
    assert trace["outcome"] == "ok"


async def test_review_when_the_layer_above_is_worse_then_the_disputed_answer_is_delivered(ask: Asker) -> None:
    cast = Cast(a0=[GOOD], b0=[reject()], c0=[reject()], a1=[Line("")], a2=[Line("")])
    reply = await ask(cast, "both", SECOND_OPINION)
    assert (reply.body, reply.value("x-sidegate-cross-check")) == (cast.answers[0], "disputed; because=max_escalations")
    assert reply.value("x-sidegate-check") == "passed"
    ask.trace(reply, cast)


SILENT: dict[str, tuple[Line, str]] = {
    "late": (Line(steps=(2.0,)), "late"),
    "error": (Line(steps=(b"HTTP/1.1 500 Oh No\r\nContent-Length: 0\r\n\r\n",)), "failed"),
    "mumbles": (Line("Well, it depends."), "unreadable"),
}


@pytest.mark.parametrize(("line", "because"), SILENT.values(), ids=SILENT)
async def test_review_when_it_fails_then_the_answer_is_delivered_unchecked(
    ask: Asker, line: Line, because: str
) -> None:
    cast = Cast(a0=[GOOD], b0=[line])
    reply = await ask(cast, "reviews", SECOND_OPINION)
    assert (reply.status, reply.body) == (200, cast.answers[0])
    assert reply.value("x-sidegate-cross-check") == f"unchecked; because={because}"


async def test_review_when_the_answer_holds_a_secret_then_no_other_provider_gets_it(ask: Asker) -> None:
    cast = Cast(a0=[Line(f"Take {HIGH} for it.")])
    reply = await ask(cast, "reviews", SECOND_OPINION)
    assert (reply.status, reply.value("x-sidegate-cross-check")) == (200, "unchecked; because=policy")
    assert HIGH.encode() not in reply.body
    ask.trace(reply, cast)


async def test_review_when_it_was_late_and_the_answer_is_blocked_then_it_is_charged(
    ask: Asker, assured: Sidegate
) -> None:
    cast = Cast(a0=[Line("Run dd if=/dev/zero of=/dev/sda bs=1M")], b0=[Line(steps=(SILENCE,))])
    reply = await ask(cast, "forbids", SECOND_OPINION)
    assert reply.status == 400
    answer, review = assured.trace(reply.trace_id)["llmCalls"]
    assert (review["check"], review["usageSource"], review["cost"] > 0) == ("late", "estimated", True)
    assert answer["usageSource"] == "provider"


async def test_judged_answers_when_compressed_then_they_are_read_and_pass_as_they_came(ask: Asker) -> None:
    def zipped(line: Line) -> Line:
        body = gzip.compress(b"".join(chat({"model": "m"}, line).pieces))
        return Line(steps=(whole(body, "Content-Encoding: gzip"),))

    cast = Cast(a0=[zipped(Line(""))], a1=[zipped(GOOD)], a2=[zipped(accept())])
    reply = await ask(cast, "both", SECOND_OPINION, "Accept-Encoding: gzip")
    assert (reply.value("x-sidegate-escalated"), reply.value("x-sidegate-cross-check")) == (
        "L0>L1; because=empty",
        "agreed",
    )
    assert reply.value("content-encoding") == "gzip"
    assert json.loads(gzip.decompress(reply.body))["choices"][0]["message"]["content"] == GOOD.text


COMPLEX = {"messages": [{"role": "user", "content": "Prove it step by step: ```x```"}]}


@pytest.mark.parametrize(
    ("headers", "members", "expected"),
    [
        ((), {}, None),
        (("x-sidegate-cross-check: off",), COMPLEX, None),
        ((), COMPLEX, "agreed"),
    ],
    ids=["simple", "switched off", "complex"],
)
async def test_review_when_nobody_asks_then_only_for_what_is_complex(
    ask: Asker, headers: Any, members: Any, expected: str | None
) -> None:
    cast = Cast(a0=[GOOD], a1=[GOOD], a2=[accept()])
    reply = await ask(cast, "reviews", *headers, **members)
    assert (reply.status, (reply.value("x-sidegate-cross-check") or "").partition(";")[0] or None) == (200, expected)


async def test_hint_when_it_is_not_known_then_400(ask: Asker) -> None:
    reply = await ask(Cast(), "plain", "x-sidegate-cross-check: maybe")
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (400, "invalid_header")


async def test_metrics_when_answers_were_judged_then_they_are_counted(ask: Asker, assured: Sidegate) -> None:
    cast = Cast(a0=[Line("")], a1=[GOOD], a2=[accept()])
    reply = await ask(cast, "both", SECOND_OPINION)
    assert reply.value("x-sidegate-cross-check") == "agreed"
    ask.trace(reply, cast)
    metrics = assured.metrics()
    assert metrics['sidegate_answer_checks_total{because="",result="passed"}'] >= 1
    assert metrics['sidegate_escalations_total{because="empty"}'] >= 1
    assert metrics['sidegate_cross_checks_total{because="",result="agreed"}'] >= 1
    assert metrics['sidegate_layer_attempts_total{layer="L2",upstream="default",why="review"}'] >= 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answer_of_a_layer_above_when_it_holds_a_secret_then_it_is_masked_as_ever(
    ask: Asker, stream: bool
) -> None:
    cast = Cast(a0=[Line("")], a1=[Line(f"Take {HIGH} for it.")])
    reply = await ask(cast, "escalates", stream=stream)
    assert reply.value("x-sidegate-escalated") == "L0>L1; because=empty"
    texts = said(reply.body, stream)
    assert HIGH not in texts
    assert (texts.startswith("Take "), texts.endswith(" for it.")) == (True, True)
    assert ask.trace(reply, cast)["policy"]["findings"]


def said(body: bytes, stream: bool) -> str:
    if not stream:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in events)


async def test_sdk_when_answers_are_replaced_then_it_reads_them_as_any_other(
    provider: Provider, assured: Sidegate, case: str
) -> None:
    provider.on(case, Cast(a0=[Line("")] * 3, a1=[GOOD] * 3))
    headers = {"X-Sidegate-Project": "escalates", "x-case-id": case}
    async with AsyncOpenAI(base_url=assured.base_url, api_key="sk-none", default_headers=headers) as client:
        messages: Any = [{"role": "user", "content": "Say it."}]
        whole = await client.chat.completions.create(model="auto", messages=messages)
        assert whole.choices[0].message.content == GOOD.text
        assert (whole.model, whole.usage.total_tokens if whole.usage else 0) == ("a1", sum(GOOD.tokens))
        chunks = await client.chat.completions.create(model="auto", messages=messages, stream=True)
        deltas = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
        assert "".join(deltas) == GOOD.text
        response = await client.responses.create(model="auto", input="Say it.")
        assert response.output_text == GOOD.text


async def left_in_the_middle(ask: Asker, assured: Sidegate, provider: Provider, case: str, cast: Cast) -> Wire:
    """Ask, and return when the second call is with its provider."""
    provider.on(case, cast)
    body = json.dumps({"model": "auto", "max_tokens": 200, "messages": [{"role": "user", "content": "Say it."}]})
    headers = ("X-Sidegate-Project: both", f"X-Sidegate-User: {case}", SECOND_OPINION)
    wire = await Wire.open(assured.address)
    await wire.send(post("/v1/chat/completions", body.encode(), *headers, case=case))
    await asyncio.to_thread(eventually, lambda: len(cast.order) == 2)
    return wire


def found(assured: Sidegate, case: str) -> dict[str, Any]:
    (trace,) = eventually(lambda: assured.api(f"/v1/traces?userId={case}")[1].get("traces"), 20)
    return assured.trace(trace["id"])


FIRST_COST = 120 / 1_000_000
SECOND = {
    "escalation": (Cast(a0=[Line("")], a1=[Line(steps=(SILENCE,))]), "escalate"),
    "review": (Cast(a0=[Line("Well.")], b0=[Line(steps=(SILENCE,))]), "review"),
}


@pytest.mark.parametrize(("cast", "why"), SECOND.values(), ids=SECOND)
async def test_client_when_it_leaves_during_the_second_call_then_both_are_charged(
    ask: Asker, assured: Sidegate, provider: Provider, case: str, cast: Cast, why: str
) -> None:
    wire = await left_in_the_middle(ask, assured, provider, case, cast)
    wire.reset()
    trace = await asyncio.to_thread(found, assured, case)
    first, second = trace["llmCalls"]
    assert (trace["outcome"], first["why"], second["why"]) == ("client_abort", "first", why)
    assert (first["usageSource"], first["cost"]) == ("provider", pytest.approx(FIRST_COST))
    assert (second["usageSource"], second["cost"] > 0) == ("estimated", True)
    assert trace["totalCost"] == pytest.approx(first["cost"] + second["cost"])


async def test_process_when_it_is_killed_during_the_second_call_then_both_are_charged(
    ask: Asker, assured: Sidegate, provider: Provider, case: str
) -> None:
    cast = Cast(a0=[Line("")], a1=[Line(steps=(SILENCE,))])
    wire = await left_in_the_middle(ask, assured, provider, case, cast)
    assured.kill9()
    assured.restart()
    trace = found(assured, case)
    assert trace["outcome"] == "interrupted"
    assert FIRST_COST + 200 * PRICES["a1"] / 1_000_000 < trace["totalCost"] < 0.01
    wire.reset()
