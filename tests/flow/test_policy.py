"""Prompts under the policy, from outside: a secret anywhere in any operation is stopped, masked or told as decided."""

import asyncio
import json
from typing import Any

import asyncpg
import openai
import pytest

from tests.fakes.judge import assert_error, assert_same_request
from tests.fakes.provider import Provider
from tests.fakes.sidegate import PROVIDER_KEY, Sidegate
from tests.fakes.steps import script, whole
from tests.fakes.wire import Reply, exchange, exchange_both, request
from tests.policy.secrets import EMAIL, HIGH, MEDIUM

JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b0und"


def form(name: str, text: str, filename: str = "") -> str:
    named = f'; filename="{filename}"' if filename else ""
    return (
        '--b0und\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        f'--b0und\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n{text}\r\n--b0und--\r\n'
    )


def chat(**message: Any) -> str:
    return json.dumps({"model": "gpt-4o-mini", "messages": [message]})


def function(**members: Any) -> list[Any]:
    return [{"id": "c", "type": "function", "function": members}]


OPERATIONS: dict[str, tuple[str, str, str, str]] = {
    "chat content": ("/v1/chat/completions", JSON, chat(role="user", content="see %s ok"), "messages[0].content"),
    "chat part": (
        "/v1/chat/completions", JSON, chat(role="user", content=[{"type": "text", "text": "%s"}]),
        "messages[0].content[0].text",
    ),
    "chat tool result": (
        "/v1/chat/completions", JSON, chat(role="tool", tool_call_id="c", content="%s"), "messages[0].content",
    ),
    "chat arguments": (
        "/v1/chat/completions", JSON,
        chat(role="assistant", tool_calls=function(name="f", arguments='{"a": "%s"}')),
        "messages[0].tool_calls[0].function.arguments",
    ),
    "chat tools": (
        "/v1/chat/completions", JSON,
        json.dumps({"model": "m", "messages": [], "tools": function(name="f", description="uses %s")}),
        "tools[0].function.description",
    ),
    "chat stream": (
        "/v1/chat/completions", JSON,
        '{"model":"m", "stream": true, "messages": [{"role": "user", "content": "%s"}]}', "messages[0].content",
    ),
    "chat twice": (
        "/v1/chat/completions", JSON,
        '{"model":"m", "messages": [{"content": "x", "content": "%s"}]}', "messages[0].content",
    ),
    "escaped": (
        "/v1/chat/completions", JSON, '{"model":"m", "messages": [{"content": "\\n\\u0020%s\\ud83d"}]}',
        "messages[0].content",
    ),
    "completions": ("/v1/completions", JSON, '{"model": "m", "prompt": ["a", "%s"]}', "prompt[1]"),
    "responses": ("/v1/responses", JSON, '{"model": "m", "input": "%s"}', "input"),
    "responses instructions": ("/v1/responses", JSON, '{"model": "m", "instructions": "%s"}', "instructions"),
    "responses item": (
        "/v1/responses", JSON,
        '{"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": "%s"}]}',
        "input[0].output",
    ),
    "embeddings": ("/v1/embeddings", JSON, '{"model": "m", "input": ["%s"]}', "input[0]"),
    "moderations": ("/v1/moderations", JSON, '{"input": "%s"}', "input"),
    "images": ("/v1/images/generations", JSON, '{"model": "dall-e-3", "prompt": "%s"}', "prompt"),
    "speech": ("/v1/audio/speech", JSON, '{"model": "tts-1", "voice": "v", "input": "%s"}', "input"),
    "metadata": ("/v1/responses", JSON, '{"model": "m", "input": "", "metadata": {"a": "%s"}}', "metadata.a"),
    "unknown JSON": ("/v1/new/thing", JSON, '{"deep": [{"er": "%s"}]}', "deep[0].er"),
    "unknown list": ("/v1/new/thing", JSON, '[["%s"]]', "[0][0]"),
    "unknown text": ("/v1/new/thing", JSON, "not json %s", ""),
    "transcription prompt": ("/v1/audio/transcriptions", FORM, form("prompt", "%s"), "prompt"),
    "image edit prompt": ("/v1/images/edits", FORM, form("prompt", "a %s b"), "prompt"),
    "uploaded file": ("/v1/files", FORM, form("file", "A=1\nK=%s\n", "x.env"), "file"),
    "unknown form": ("/v1/new/thing", FORM, form("field", "%s"), "field"),
    "raw": ("/v1/new/thing", "Content-Type: text/plain", "line %s", "body"),
}  # fmt: skip
table = pytest.mark.parametrize(("path", "kind", "body", "place"), OPERATIONS.values(), ids=OPERATIONS.keys())


async def ask(sidegate: Sidegate, path: str, kind: str, body: str, case: str, *headers: str) -> Reply:
    return await exchange(
        sidegate.address, request("POST", path, kind, *headers, body=body.encode(), case=case), timeout_s=30
    )


@table
async def test_secret_of_high_severity_when_anywhere_in_a_request_then_it_is_refused_and_never_sent(
    provider: Provider, sidegate: Sidegate, case: str, path: str, kind: str, body: str, place: str
) -> None:
    reply = await ask(sidegate, path, kind, body.replace("%s", HIGH), case)
    error = assert_error(reply, 400, "policy_violation")
    assert error["param"] == (place or None)
    assert "github-token" in error["details"]["rules"]
    assert HIGH not in reply.body.decode()
    assert not any(HIGH.encode() in seen.body for seen in provider.seen(case))
    if kind == JSON:
        assert provider.seen(case) == []


@table
async def test_secret_of_medium_severity_when_anywhere_in_a_request_then_it_is_masked(
    provider: Provider, sidegate: Sidegate, case: str, path: str, kind: str, body: str, place: str
) -> None:
    provider.on(case, script(whole(b"{}")))
    reply = await ask(sidegate, path, kind, body.replace("%s", MEDIUM), case)
    assert reply.status == 200
    (seen,) = provider.seen(case)
    assert MEDIUM.encode() not in seen.body
    if kind == JSON and not path.endswith("thing"):
        sent = json.loads(seen.body)
        sent.pop("stream_options", None)
        assert sent == json.loads(body.replace("%s", "ghp_" + "*" * 8))
    elif kind != JSON:
        assert seen.body.decode() == body.replace("%s", "ghp_".ljust(len(MEDIUM), "*"))
    header = reply.value("x-sidegate-policy") or ""
    if kind == JSON:
        assert header.startswith("redact; rules=") and "github-token" in header


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [row[:3] for name, row in OPERATIONS.items() if name not in ("chat twice", "chat stream")],
    ids=[name for name in OPERATIONS if name not in ("chat twice", "chat stream")],
)
async def test_request_when_nothing_is_found_then_it_is_forwarded_byte_for_byte(
    provider: Provider, sidegate: Sidegate, case: str, path: str, kind: str, body: str
) -> None:
    data = request("POST", path, kind, body=body.replace("%s", "sk-your-key-here").encode(), case=case)
    provider.on(case, script(whole(b"{}")))
    _, through = await exchange_both(provider.address, sidegate.address, data)
    assert_same_request(*provider.seen(case))
    assert through.value("x-sidegate-policy") is None


async def test_mail_address_when_in_a_prompt_then_it_is_flagged_and_passes(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = chat(role="user", content=f"write to {EMAIL}")
    reply = await ask(sidegate, "/v1/chat/completions", JSON, body, case)
    assert (reply.status, provider.seen(case)[0].body) == (200, body.encode())
    assert (reply.value("x-sidegate-policy") or "").startswith("flag; rules=email-address; version=")


def test_official_client_when_a_prompt_is_blocked_then_it_raises_bad_request_and_does_not_try_again(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    client = openai.OpenAI(base_url=sidegate.base_url, api_key="sk-x", default_headers={"x-case-id": case})
    with client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": HIGH}])
    assert (caught.value.code, caught.value.param) == ("policy_violation", "messages[0].content")
    assert provider.seen(case) == []
    assert PROVIDER_KEY not in str(caught.value)


async def test_trace_when_something_was_found_then_it_says_what_where_and_what_was_done_and_never_the_text(
    sidegate: Sidegate, case: str
) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"content": f"{MEDIUM} {EMAIL}"}, {"content": "x"}]})
    reply = await ask(sidegate, "/v1/chat/completions", JSON, body, case)
    trace = sidegate.trace(reply.trace_id)
    policy = trace["policy"]
    found = [(each["rule"], each["action"], each["direction"], each["place"]) for each in policy["findings"]]
    assert found == [
        ("github-token", "redact", "prompt", "messages[0].content"),
        ("email-address", "flag", "prompt", "messages[0].content"),
    ]
    assert (policy["findings"][0]["start"], policy["findings"][0]["end"]) == (0, len(MEDIUM))
    assert policy["scanned"]["prompt"] >= len(MEDIUM) and len(policy["version"]) == 12
    assert MEDIUM not in json.dumps(trace) and EMAIL not in json.dumps(trace)


async def test_trace_when_a_request_was_blocked_then_it_was_rejected_at_no_cost(sidegate: Sidegate, case: str) -> None:
    for kind, path, body in (
        (JSON, "/v1/chat/completions", chat(role="user", content=HIGH)),
        (FORM, "/v1/audio/transcriptions", form("prompt", HIGH)),
    ):
        trace = sidegate.trace((await ask(sidegate, path, kind, body, case)).trace_id)
        assert (trace["outcome"], trace["status"], trace["totalCost"]) == ("rejected", 400, 0)
        assert trace["errorInfo"]["code"] == "policy_violation"
        assert trace["policy"]["findings"][0]["action"] == "block"
        assert HIGH not in json.dumps(trace)


async def test_metrics_when_something_was_found_then_rules_and_actions_are_counted(
    sidegate: Sidegate, case: str
) -> None:
    await ask(sidegate, "/v1/chat/completions", JSON, chat(role="user", content=HIGH), case)
    metrics = sidegate.metrics()
    assert metrics['sidegate_policy_findings_total{action="block",direction="prompt",rule="github-token"}'] >= 1
    assert metrics['sidegate_errors_total{code="policy_violation",source="policy"}'] >= 1


async def test_project_when_it_changes_its_policy_then_it_counts_within_seconds(
    provider: Provider, sidegate: Sidegate, session_database_url: str, case: str
) -> None:
    security = {"promptActions": {"secret": "flag"}, "blockedKeywords": ["project zeus"]}
    connection = await asyncpg.connect(session_database_url)
    try:
        await connection.execute(
            "INSERT INTO projects (id, organization_id, name, config) VALUES ('policy-p', 'default-org', 'p', $1)",
            json.dumps({"security": security}),
        )
    finally:
        await connection.close()
    identity = "X-Sidegate-Project: policy-p"
    zeus = chat(role="user", content="about Project  Zeus")
    async with asyncio.timeout(20):
        while (await ask(sidegate, "/v1/chat/completions", JSON, zeus, case, identity)).status == 200:
            await asyncio.sleep(0.1)
    reply = await ask(sidegate, "/v1/chat/completions", JSON, zeus, case, identity)
    assert assert_error(reply, 400, "policy_violation")["details"]["rules"][0].startswith("keyword-")
    secret = chat(role="user", content=HIGH)
    assert (await ask(sidegate, "/v1/chat/completions", JSON, secret, case, identity)).status == 200
    assert provider.seen(case)[-1].body == secret.encode()
    assert (await ask(sidegate, "/v1/chat/completions", JSON, secret, case)).status == 400
