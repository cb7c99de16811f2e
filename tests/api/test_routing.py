"""What is said of a request without calling anyone: whose it would be, and what the policy would do."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.api.caller import Caller
from proxy.auth.keys import StoredKey
from proxy.config import schema
from proxy.errors import ProxyError
from proxy.openai.error_body import render
from tests.fakes.own_api import routing
from tests.policy.secrets import HIGH, MEDIUM

Ask = Callable[..., Any]
BODY: Mapping[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "user": "eve"}
KEYS = schema.Config(auth={"mode": "keys"})  # type: ignore[arg-type]
OPERATOR = Caller(frozenset())


def key(**scopes: list[str]) -> Caller:
    now = datetime.now(UTC)
    ends = (None, None, None, None, None)
    return Caller(frozenset(), StoredKey("k", b"", "n", "bob", "shop", scopes, "t", now, *ends, "developer", True))


@asynccontextmanager
async def asking(caller: Caller, config: schema.Config | None = None) -> AsyncIterator[Ask]:
    api = routing(config)

    async def handle(request: web.BaseRequest) -> web.Response:
        try:
            return await api.explain(request, {}, caller)
        except ProxyError as error:
            status, _, body = render(error)
            return web.Response(status=status, body=body)

    async with TestClient(RawTestServer(handle)) as client:

        async def ask(body: object = BODY, **headers: str) -> tuple[int, Any]:
            async with client.post("/", data=json.dumps(body), headers=headers) as answer:
                return answer.status, json.loads(await answer.read())

        yield ask


WHOSE = {
    "key in mode keys": (key(), KEYS, {"X-Sidegate-User": "eve"}, ("bob", "shop")),
    "key in mode trusted": (key(), None, {}, ("eve", "shop")),
    "operator in mode keys": (OPERATOR, KEYS, {"X-Sidegate-Project": "lab"}, ("anonymous", "lab")),
    "operator in mode trusted": (OPERATOR, None, {"X-Sidegate-User": "ann"}, ("ann", "default-project")),
}


@pytest.mark.parametrize(("caller", "config", "headers", "who"), WHOSE.values(), ids=WHOSE.keys())
async def test_explanation_is_for_whom_the_request_would_count(caller, config, headers, who):
    async with asking(caller, config) as ask:
        status, found = await ask(BODY, **headers)
    assert (status, found["userId"], found["projectId"]) == (200, *who)


SCOPES = {
    "name": (["chat.completions.create"], 200),
    "kind": (["chat"], 200),
    "another": (["embeddings", "responses.create"], 403),
}


@pytest.mark.parametrize(("operations", "status"), SCOPES.values(), ids=SCOPES.keys())
async def test_explanation_is_refused_where_the_keys_operations_leave_the_request_out(operations, status):
    async with asking(key(operations=operations)) as ask:
        answered, found = await ask()
    assert answered == status
    assert status == 200 or found["error"]["code"] == "operation_not_allowed"


async def test_explanation_says_what_the_policy_would_do_and_never_the_text():
    async with asking(OPERATOR) as ask:
        clean = (await ask())[1]["policy"]
        text = json.dumps(await ask({**BODY, "messages": [{"content": f"{HIGH} {MEDIUM}"}]}))
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 40}}
        unseen = (await ask({**BODY, "messages": [{"content": [image]}]}))[1]["policy"]
    assert (clean["scanned"], clean["action"], clean["findings"], clean["unscanned"]) == (True, "allow", [], [])
    assert HIGH not in text and MEDIUM not in text
    verdict = json.loads(text)[1]["policy"]
    assert verdict["action"] == "block"
    assert {(one["severity"], one["action"], one["place"]) for one in verdict["findings"]} == {
        ("high", "block", "messages[0].content"),
        ("medium", "redact", "messages[0].content"),
    }
    assert (unseen["action"], unseen["unscanned"][0]["reason"]) == ("allow", "media")


async def test_explanation_where_media_may_not_pass_says_block():
    async with asking(OPERATOR, schema.Config(policy={"unscannable": "deny"})) as ask:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 40}}
        assert (await ask({**BODY, "messages": [{"content": [image]}]}))[1]["policy"]["action"] == "block"


async def test_explanation_where_prompts_are_not_scanned_says_so():
    async with asking(OPERATOR, schema.Config(policy={"scan_prompts": False})) as ask:
        found = (await ask({**BODY, "messages": [{"content": HIGH}]}))[1]["policy"]
    assert (found["scanned"], found["action"]) == (False, "allow")


async def test_body_that_only_a_thread_may_decode_is_refused():
    async with asking(OPERATOR, schema.Config(limits={"json_thread_bytes": 1000})) as ask:
        status, found = await ask({**BODY, "messages": [{"role": "user", "content": "x" * 1000}]})
    assert (status, found["error"]["code"]) == (413, "request_too_large")
    assert "1000 bytes" in found["error"]["message"]
