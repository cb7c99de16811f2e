"""A dry run of the policy over the management API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import RawTestServer, TestClient

from proxy.config import schema
from proxy.db.pool import Database
from tests.fakes.own_api import ADMIN_KEY, handler, own_api
from tests.policy.secrets import HIGH, MEDIUM

PATH = "/v1/sidegate/policy/test"


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(RawTestServer(handler(own_api(Database(schema.Database()))))) as running:
        yield running


async def ask(client: TestClient[Any, Any], document: Any) -> tuple[int, Any]:
    reply = await client.post(PATH, json=document, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    return reply.status, await reply.json()


async def test_policy_when_tried_on_a_text_then_it_says_what_would_be_done(client: TestClient[Any, Any]) -> None:
    status, said = await ask(client, {"text": f"k {MEDIUM}", "projectId": "p"})
    assert (status, said["action"], said["result"]) == (200, "redact", "k ghp_********")
    (finding,) = said["findings"]
    assert (finding["rule"], finding["place"], finding["start"]) == ("github-token", "", 2)
    assert len(said["policyVersion"]) == 12


async def test_policy_when_tried_on_a_body_that_it_blocks_then_nothing_of_it_comes_back(
    client: TestClient[Any, Any],
) -> None:
    status, said = await ask(client, {"body": {"messages": [{"content": HIGH}]}})
    assert (status, said["action"], said["result"]) == (200, "block", None)
    assert said["findings"][0]["place"] == "messages[0].content"
    assert HIGH not in str(said)


async def test_policy_when_tried_on_an_answer_then_the_other_direction_decides(client: TestClient[Any, Any]) -> None:
    assert (await ask(client, {"text": HIGH, "direction": "output"}))[1]["action"] == "redact"


async def test_policy_when_much_is_found_then_as_many_are_listed_as_a_trace_would_hold(
    client: TestClient[Any, Any],
) -> None:
    assert len((await ask(client, {"text": f"{HIGH} " * 200}))[1]["findings"]) == 100


MISTAKES = {
    "nothing": ({}, "text"),
    "both": ({"text": "", "body": {}}, "text"),
    "no text": ({"text": 1}, "text"),
    "no object": ({"body": []}, "body"),
    "direction": ({"text": "", "direction": "in"}, "direction"),
    "body of an answer": ({"body": {}, "direction": "output"}, "direction"),
    "project": ({"text": "", "projectId": ""}, "projectId"),
    "unknown": ({"txt": ""}, "txt"),
}


@pytest.mark.parametrize(("document", "param"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_policy_when_asked_wrongly_then_the_mistake_is_named(
    client: TestClient[Any, Any], document: Any, param: str
) -> None:
    status, said = await ask(client, document)
    assert (status, said["error"]["param"]) == (400, param)


async def test_policy_when_asked_without_a_key_or_json_then_it_is_refused(client: TestClient[Any, Any]) -> None:
    assert (await client.post(PATH, json={"text": ""})).status == 401
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    assert (await client.post(PATH, data=b"[", headers=headers)).status == 400
