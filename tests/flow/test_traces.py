"""Every request leaves exactly one trace that says what happened, and the metrics agree without growing."""

import asyncio
import json

import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.judge import assert_error, eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.steps import script, whole
from tests.fakes.wire import exchange, post, request

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a secret prompt of the client"}]}'


@pytest.mark.parametrize(
    ("path", "kind", "priced"),
    [
        ("/v1/chat/completions", "chat", True),
        ("/v1/responses", "responses", True),
        ("/v1/completions", "completions", True),
        ("/v1/embeddings", "embeddings", True),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_trace_when_the_call_succeeds_then_it_agrees_with_the_providers_ledger(
    provider: Provider, sidegate: Sidegate, case: str, path: str, kind: str, priced: bool, stream: bool
) -> None:
    model = "text-embedding-3-small" if kind == "embeddings" else "gpt-4o-mini"
    body = {"model": model, "input": "x", "messages": [], "prompt": "x"} | ({"stream": True} if stream else {})
    reply = await exchange(sidegate.address, post(path, json.dumps(body).encode(), case=case))
    (billed,) = provider.billed(case)
    trace = sidegate.trace(reply.trace_id)
    assert trace["id"] == reply.trace_id
    assert (trace["inputTokens"], trace["outputTokens"]) == (billed.input_tokens, billed.output_tokens)
    assert (trace["outcome"], trace["status"], trace["requestType"], trace["usageSource"]) == (
        "ok",
        200,
        kind,
        "provider",
    )
    assert trace["model"] == model
    assert (trace["totalCost"] > 0) == priced
    (call,) = trace["llmCalls"]
    assert (call["inputTokens"], call["status"], call["requestId"]) == (billed.input_tokens, 200, f"req_{case}")
    assert 0 <= trace["overheadMs"] <= trace["totalDurationMs"]


async def test_trace_when_the_answer_names_another_tier_then_its_price_counts(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    costs = {}
    for tier in ("default", "flex", "priority"):
        body = {"model": "gpt-5", "messages": [], "service_tier": tier}
        reply = await exchange(sidegate.address, post("/v1/chat/completions", json.dumps(body).encode(), case=case))
        trace = sidegate.trace(reply.trace_id)
        assert trace["llmCalls"][0]["serviceTier"] == tier
        costs[tier] = trace["totalCost"]
    assert costs["flex"] * 2 == costs["default"] == costs["priority"] / 2 > 0


@pytest.mark.parametrize(
    ("path", "header", "kind"),
    [
        ("/v1/chat", (), "chat"),
        ("/v1/code-agent?a=1", (), "code-agent"),
        ("/v1/responses", ("x-sidegate-request-type: code-agent",), "code-agent"),
    ],
)
async def test_trace_when_a_request_says_what_it_is_for_then_it_is_found_by_that(
    provider: Provider, sidegate: Sidegate, case: str, path: str, header: tuple[str, ...], kind: str
) -> None:
    reply = await exchange(sidegate.address, post(path, CHAT, *header, case=case))
    assert reply.status == 200
    (seen,) = provider.seen(case)
    assert seen.target == path.replace("/v1/code-agent", "/v1/chat").replace("/v1/chat", "/v1/chat/completions")
    assert sidegate.trace(reply.trace_id)["requestType"] == kind
    found = sidegate.api(f"/v1/traces?requestType={kind}&limit=1")[1]["traces"]
    assert [trace["id"] for trace in found] == [reply.trace_id]


async def test_request_type_when_it_is_not_known_then_it_is_refused_and_recorded(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    reply = await exchange(
        sidegate.address, post("/v1/chat/completions", CHAT, "x-sidegate-request-type: no-such-type", case=case)
    )
    assert_error(reply, 400)
    assert provider.seen(case) == []
    assert sidegate.trace(reply.trace_id)["requestType"] == "chat"


async def test_trace_when_the_provider_refuses_then_it_costs_nothing(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    error = b'{"error":{"message":"no","type":"invalid_request_error","param":"model","code":"model_not_found"}}'
    provider.on(case, script(whole(error, "x-request-id: req_9", status="404 Not Found")))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["status"], trace["totalCost"]) == ("upstream_error", 404, 0)
    assert trace["errorInfo"]["code"] == "model_not_found"


async def test_trace_when_we_refuse_then_no_call_was_made(provider: Provider, sidegate: Sidegate, case: str) -> None:
    reply = await exchange(sidegate.address, post("/v1/chat/completions", b"{", case=case))
    assert_error(reply, 400)
    trace = sidegate.trace(reply.trace_id)
    assert (trace["outcome"], trace["status"], trace["llmCalls"], trace["totalCost"]) == ("rejected", 400, [], 0)
    assert trace["errorInfo"]["source"] == "client"


async def test_trace_when_the_answer_has_no_usage_then_it_is_estimated(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    answer = b'{"model":"gpt-4o-mini","choices":[{"index":0,"message":{"content":"some words without usage"}}]}'
    provider.on(case, script(whole(answer)))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    trace = sidegate.trace(reply.trace_id)
    assert trace["usageSource"] == "estimated"
    assert trace["inputTokens"] > 0
    assert trace["outputTokens"] > 0


@pytest.mark.parametrize("usage", [b"-5", b"1e30", b'"7"', b"true", b"null", b"[]", b"1.5", b"99999999999999999999999"])
async def test_trace_when_usage_is_absurd_then_the_answer_passes_and_the_trace_is_stored(
    provider: Provider, sidegate: Sidegate, case: str, usage: bytes
) -> None:
    answer = b'{"choices":[],"usage":{"prompt_tokens":%b,"completion_tokens":%b,"total_tokens":1}}' % (usage, usage)
    provider.on(case, script(whole(answer)))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    assert reply.body == answer
    assert 0 <= sidegate.trace(reply.trace_id)["inputTokens"] < 1e12


async def test_trace_when_identity_is_given_then_it_can_be_found_by_it(sidegate: Sidegate, case: str) -> None:
    lines = (f"X-Sidegate-User: user-{case}", f"X-Sidegate-Project: project-{case}", "User-Agent: tester/1")
    body = CHAT[:-1] + b',"user":"somebody else"}'
    replies = [
        await exchange(sidegate.address, post("/v1/chat/completions", body, *lines, case=case)) for _ in range(3)
    ]
    ids = {reply.trace_id for reply in replies}
    for query in (f"userId=user-{case}", f"projectId=project-{case}&outcome=ok&limit=500"):
        found = eventually(lambda query=query: _all_of(sidegate, query, 3))
        assert {trace["id"] for trace in found} == ids
    page = sidegate.api(f"/v1/traces?userId=user-{case}&limit=2")[1]
    assert len(page["traces"]) == 2


def _all_of(sidegate: Sidegate, query: str, count: int) -> list[dict[str, object]] | None:
    found: list[dict[str, object]] = sidegate.api(f"/v1/traces?{query}")[1]["traces"]
    return found if len(found) == count else None


@pytest.mark.parametrize("member", ["safety_identifier", "user"])
async def test_trace_when_only_the_body_names_the_user_then_that_is_the_user(
    sidegate: Sidegate, case: str, member: str
) -> None:
    body = CHAT[:-1] + f',"{member}":"{case}"}}'.encode()
    reply = await exchange(sidegate.address, post("/v1/chat/completions", body, case=case))
    assert sidegate.trace(reply.trace_id)["userId"] == case


async def test_trace_when_tools_are_used_then_calls_and_results_are_listed_without_their_text(
    sidegate: Sidegate, case: str
) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    result = {"role": "tool", "tool_call_id": "call_0", "content": "a secret result"}
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}, result], "tools": [tool]}
    for stream in (False, True):
        data = json.dumps(body | {"stream": stream}).encode()
        trace = sidegate.trace(
            (await exchange(sidegate.address, post("/v1/chat/completions", data, case=case))).trace_id
        )
        assert [(tool["kind"], tool["name"]) for tool in trace["toolCalls"] if tool["kind"] == "call"] == [
            ("call", "get_weather")
        ]
        assert [tool["id"] for tool in trace["toolCalls"] if tool["kind"] == "result"] == ["call_0"]
        assert "secret" not in json.dumps(trace)
        assert "Paris" not in json.dumps(trace)


async def test_trace_when_fields_hold_hostile_text_then_it_is_stored(sidegate: Sidegate, case: str) -> None:
    body = b'{"model":"m\\u0000\\ud800' + b"x" * 5000 + b'","messages":[],"user":"a\\u0000b\'; DROP TABLE x;--"}'
    reply = await exchange(
        sidegate.address, post("/v1/chat/completions", body, "User-Agent: \x80\xff\t%s{}", case=case)
    )
    assert reply.status == 200
    assert len(sidegate.trace(reply.trace_id)["model"] or "") <= 1024


async def test_trace_when_an_endpoint_bills_nothing_then_it_is_stored_all_the_same(
    sidegate: Sidegate, case: str
) -> None:
    reply = await exchange(sidegate.address, request("GET", "/v1/models", case=case))
    trace = sidegate.trace(reply.trace_id)
    assert (trace["requestType"], trace["totalCost"], trace["outcome"]) == ("models", 0, "ok")


async def test_request_ids_when_many_at_once_then_each_trace_is_its_own(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    data = [post("/v1/chat/completions", CHAT, f"X-Sidegate-User: {case}", case=f"{case}-{n}") for n in range(60)]
    replies = await asyncio.gather(*(exchange(sidegate.address, one) for one in data))
    assert len({reply.trace_id for reply in replies}) == 60
    found = eventually(lambda: _all_of(sidegate, f"userId={case}&limit=500", 60))
    billed = sum(entry.input_tokens for n in range(60) for entry in provider.billed(f"{case}-{n}"))
    assert sum(trace["inputTokens"] for trace in found) == billed


async def test_metrics_when_models_and_paths_are_many_then_series_stay_bounded(sidegate: Sidegate, case: str) -> None:
    bodies = [b'{"model":"model-%d","messages":[]}' % number for number in range(130)]
    bodies.append(b'{"model":"a\\n\\"x{} 1\\nsidegate_fake 1","messages":[]}')
    await asyncio.gather(
        *(exchange(sidegate.address, post("/v1/chat/completions", body, case=case)) for body in bodies)
    )
    before = len(sidegate.metrics())
    more = [request("GET", f"/v1/unknown-{case}-{number}?x={number}", case=case) for number in range(50)]
    more += [post("/v1/chat/completions", b'{"model":"other-%d","messages":[]}' % n, case=case) for n in range(50)]
    await asyncio.gather(*(exchange(sidegate.address, one) for one in more))
    assert len(sidegate.metrics()) - before < 60
    text = sidegate.ops("/metrics")[1]
    assert f"unknown-{case}-1" not in text
    assert "\nsidegate_fake" not in text


async def test_metrics_when_requests_end_then_they_are_counted_once(sidegate: Sidegate, case: str) -> None:
    def total() -> float:
        return sum(v for name, v in sidegate.metrics().items() if name.startswith("sidegate_requests_total"))

    before = total()
    for _ in range(5):
        await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    await exchange(sidegate.address, post("/v1/chat/completions", b"{", case=case))
    assert total() - before == 6


async def test_tracing_when_switched_off_then_accounting_is_kept_and_nothing_else(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(ENABLE_REQUEST_TRACING="false")
    reply = await exchange(proxy.address, post("/v1/chat/completions", CHAT, "User-Agent: tester/1", case=case))
    trace = proxy.trace(reply.trace_id)
    assert trace["inputTokens"] == provider.billed(case)[0].input_tokens
    assert "tester/1" not in json.dumps(trace)


async def _turn(
    proxy: Sidegate, provider: Provider, name: str, *lines: str, stream: bool = False, **members: object
) -> str:
    """Have a response with the id `name`; return the id of its trace."""
    answer = {"id": name, "object": "response", "status": "completed", "output": []}
    answer |= {"usage": {"input_tokens": 1, "output_tokens": 1}}
    data = json.dumps({"type": "response.completed", "response": answer} if stream else answer).encode()
    kind = "text/event-stream" if stream else "application/json"
    provider.on(name, script(whole(b"data: %b\n\n" % data if stream else data, content_type=kind)))
    body = json.dumps({"model": "gpt-4o-mini", "input": "hi", "stream": stream, **members}).encode()
    reply = await exchange(proxy.address, post("/v1/responses", body, *lines, case=name))
    assert reply.status == 200
    return reply.trace_id


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_trace_when_responses_continue_each_other_then_they_share_a_conversation(
    sidegate: Sidegate, provider: Provider, case: str, stream: bool
) -> None:
    async def turn(number: int, *lines: str, **members: object) -> str:
        return await _turn(sidegate, provider, f"{case}_{number}", *lines, stream=stream, **members)

    turns = [await turn(1)]
    turns += [await turn(number, previous_response_id=f"{case}_{number - 1}") for number in (2, 3, 4)]
    turns += [await turn(5, conversation=f"conv_{case}"), await turn(6, previous_response_id=f"{case}_5")]
    turns += [await turn(7, "X-Sidegate-Conversation: mine", previous_response_id=f"{case}_6")]
    turns += [await turn(8, previous_response_id=f"{case}_7")]
    turns += [await turn(9, "X-Sidegate-Project: elsewhere", previous_response_id=f"{case}_7")]
    traces = [sidegate.trace(trace_id) for trace_id in turns]
    first, named = f"{case}_1", f"conv_{case}"
    assert [trace["conversationRef"] for trace in traces] == [
        None, first, first, first, named, named, "mine", "mine", f"{case}_7",
    ]  # fmt: skip
    assert [trace["id"] for trace in _all_of(sidegate, f"conversationId={first}", 3) or ()] == turns[3:0:-1]


async def test_trace_when_responses_continue_each_other_in_other_processes_then_they_share_a_conversation(
    sidegate: Sidegate, launch: Launch, provider: Provider, case: str
) -> None:
    other, first, named = launch(), f"{case}_1", f"conv_{case}"
    turns = [await _turn(sidegate, provider, first, conversation=named)]
    for number, proxy in ((2, other), (3, sidegate), (4, other)):
        turns.append(await _turn(proxy, provider, f"{case}_{number}", previous_response_id=f"{case}_{number - 1}"))
    assert other.terminate() == 0
    turns.append(await _turn(other.restart(), provider, f"{case}_5", previous_response_id=f"{case}_4"))

    found = eventually(lambda: _all_of(sidegate, f"conversationId={named}", 5))
    assert sorted(trace["id"] for trace in found) == sorted(turns)
