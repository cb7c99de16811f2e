"""The official SDK sees the same through the proxy as direct, and the provider sees the same request."""

import json
import re
from typing import Any

import pytest
from openai import NotFoundError, OpenAI

from tests.clients.calls import CALLS, Call, unknown_endpoint
from tests.fakes.connection import Seen
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate

BY_SYSTEM = {b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization", b"accept-encoding"}


def client_for(base_url: str, case: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=base_url, api_key="sk-of-the-client", default_headers={"x-case-id": case}, **options)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_call_when_made_through_the_proxy_then_it_is_the_same_as_direct(
    provider: Provider, sidegate: Sidegate, case: str, call: Call
) -> None:
    with client_for(provider.base_url, case) as direct:
        expected = call(direct)
    requests = len(provider.seen(case))
    with client_for(sidegate.base_url, case) as through:
        assert call(through) == expected
    seen = provider.seen(case)
    assert len(seen) == 2 * requests
    for one, other in zip(seen[:requests], seen[requests:], strict=True):
        assert_same_call(one, other)


def assert_same_call(direct: Seen, through: Seen) -> None:
    assert (through.method, through.target) == (direct.method, direct.target)
    assert headers(through) == headers(direct)
    kind = (direct.value(b"content-type") or b"") if direct.body else b""
    if kind.startswith(b"multipart/"):
        assert without_boundary(through) == without_boundary(direct)
    elif kind == b"application/json" and (asked := json.loads(direct.body)).get("stream") and "input" not in asked:
        assert json.loads(through.body) == {"stream_options": {"include_usage": True}} | asked
    else:
        assert through.body == direct.body


def headers(seen: Seen) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower(), re.sub(rb"boundary=.*", b"", value))
        for name, value in seen.headers
        if name.lower() not in BY_SYSTEM
    ]


def without_boundary(seen: Seen) -> bytes:
    boundary = (seen.value(b"content-type") or b"").partition(b"boundary=")[2]
    assert boundary
    return seen.body.replace(boundary, b"BOUNDARY")


def test_call_when_the_endpoint_is_unknown_then_the_providers_own_error_arrives(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    found = []
    for base_url in (provider.base_url, sidegate.base_url):
        with client_for(base_url, case) as client, pytest.raises(NotFoundError) as caught:
            unknown_endpoint(client)
        found.append((str(caught.value), caught.value.request_id, caught.value.body))
    assert found[0] == found[1]


def test_client_when_it_sends_many_calls_then_one_connection_serves_them(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    with client_for(sidegate.base_url, case) as client:
        for name in ("chat", "chat_stream", "responses_stream", "embeddings", "chat_stream_usage"):
            CALLS[name](client)
    assert len({seen.connection for seen in provider.seen(case)}) == 1


def test_trace_when_the_sdk_called_then_it_names_the_sdk(sidegate: Sidegate, case: str) -> None:
    with client_for(sidegate.base_url, case, default_query={}) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}], extra_headers={"X-Sidegate-User": case}
        )
    trace = sidegate.trace(raw.headers["x-sidegate-trace-id"])
    assert trace["userId"] == case
    assert "python" in json.dumps(trace["client"]).lower()
