"""Mode `keys`, judged from outside: who gets in, what the official SDK makes of a refusal, and where keys never are."""

import http.client
import json
import time
from typing import Any

import openai
import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.provider import Provider
from tests.fakes.sidegate import ADMIN_KEY, Sidegate

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


def ask(sidegate: Sidegate, method: str, path: str, key: str, body: object = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(*sidegate.address, timeout=10)
    try:
        data = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {key}", "X-Sidegate-User": "mallory", "Content-Type": "application/json"}
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, (json.loads(answer.read()), answer.headers["x-sidegate-trace-id"])
    finally:
        connection.close()


def make(sidegate: Sidegate, **facts: object) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while True:
        new = {"name": "test", "userId": "alice", "projectId": "default-project", **facts}
        status, (made, _) = ask(sidegate, "POST", "/v1/sidegate/keys", ADMIN_KEY, new)
        if status == 201:
            assert isinstance(made, dict)
            return made
        assert status == 503 and time.monotonic() < deadline, made  # the database may still be starting
        time.sleep(0.02)


def test_keys_decide_who_gets_in_and_are_found_nowhere(launch: Launch, provider: Provider) -> None:
    sidegate = launch(SIDEGATE__AUTH__MODE="keys", SIDEGATE__AUTH__REFRESH_S="0.1")
    limited = make(sidegate, scopes={"models": ["gpt-4o-mini"], "surfaces": ["data"]})
    key = limited["key"]

    status, (_, trace_id) = ask(sidegate, "POST", "/v1/chat/completions", key, CHAT)
    assert status == 200
    trace = sidegate.trace(trace_id)
    assert (trace["userId"], trace["projectId"], trace["client"]["keyId"]) == (
        "alice",
        "default-project",
        limited["id"],
    )

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{sidegate.address[1]}/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    assert denied.value.code == "model_not_allowed"
    for wrong in (key[:-1], ADMIN_KEY, "sk-anything"):
        with pytest.raises(openai.AuthenticationError) as refused:
            client.with_options(api_key=wrong).models.list()
        assert refused.value.code == "invalid_api_key"
    assert ask(sidegate, "GET", "/v1/sidegate/whoami", key)[0] == 403  # its scopes leave the management API out
    assert ask(sidegate, "GET", "/v1/sidegate/whoami", ADMIN_KEY)[1][0]["authMode"] == "keys"

    assert ask(sidegate, "POST", f"/v1/sidegate/keys/{limited['id']}/revoke", ADMIN_KEY)[0] == 200
    with pytest.raises(openai.AuthenticationError):
        client.models.list()

    shown = json.dumps(trace) + sidegate.ops("/metrics")[1] + sidegate.log()
    journal = b"".join(path.read_bytes() for path in (sidegate.data_dir / "var").rglob("*") if path.is_file())
    assert key not in shown and key.encode() not in journal


def test_whoami_of_a_process_that_serves_no_models_then_it_does_not_say_who_calls_them(launch: Launch) -> None:
    hub = launch(SIDEGATE__SERVER__SURFACES="api")
    assert ask(hub, "GET", "/v1/sidegate/whoami", ADMIN_KEY)[1][0]["authMode"] is None


def test_revocation_reaches_other_replicas_within_seconds(launch: Launch) -> None:
    settings = {"SIDEGATE__AUTH__MODE": "keys", "SIDEGATE__AUTH__REFRESH_S": "0.2"}
    first, second = launch(**settings), launch(**settings)
    made = make(first)
    for sidegate in (first, second):
        assert ask(sidegate, "POST", "/v1/chat/completions", made["key"], CHAT)[0] == 200
    ask(first, "POST", f"/v1/sidegate/keys/{made['id']}/revoke", ADMIN_KEY)
    deadline = time.monotonic() + 5
    while ask(second, "POST", "/v1/chat/completions", made["key"], CHAT)[0] != 401:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_unknown_key_without_a_database_is_503(launch: Launch) -> None:
    sidegate = launch(
        database="postgresql://127.0.0.1:9/none", SIDEGATE__AUTH__MODE="keys", SIDEGATE__SERVER__FLUSH_S="2"
    )
    status, (answer, _) = ask(sidegate, "POST", "/v1/chat/completions", "sg-abcdef012345-" + "x" * 43, CHAT)
    assert (status, answer["error"]["code"]) == (503, "database_unavailable")
