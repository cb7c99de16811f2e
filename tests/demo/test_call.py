"""Reading a request: refusals of OpenAI's shape, limits taken from the body."""

from typing import Any

import aiohttp
import pytest

from proxy.demo.call import error_document, is_count


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (403, "request_forbidden", "permission_denied"),
        (429, "requests", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", None),
    ],
)
def test_error_document_when_status_then_type_and_code(status: int, kind: str, code: str | None) -> None:
    error = error_document(status, "why")["error"]
    assert error == {"message": "why", "type": kind, "param": None, "code": code}


@pytest.mark.parametrize(
    ("value", "count"), [(1, True), (0, False), (-1, False), (True, False), (1.0, False), ("1", False)]
)
def test_is_count_when_any_json_value_then_whole_and_positive(value: Any, count: bool) -> None:
    assert is_count(value) is count


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", b"{", None),
        ("chat/completions", b"[]", None),
        ("chat/completions", b"{}", "model"),
        ("chat/completions", b'{"model": ""}', "model"),
        ("chat/completions", b'{"model": "m"}', "messages"),
        ("chat/completions", b'{"model": "m", "messages": ["a"], "n": 99}', "n"),
        ("embeddings", b'{"model": "m", "input": "a", "dimensions": 99999}', "dimensions"),
        ("chat/completions", b'{"model": "m!ctu", "messages": ["a"]}', None),
    ],
)
async def test_request_when_not_understood_then_400_and_param(
    base_url: str, http: aiohttp.ClientSession, path: str, body: bytes, param: str | None
) -> None:
    async with http.post(f"{base_url}/{path}", data=body) as answer:
        assert answer.status == 400
        assert answer.headers["x-request-id"].startswith("req_")
        assert (await answer.json())["error"]["param"] == param


async def test_request_when_rate_limit_is_asked_for_then_429_with_its_headers(
    base_url: str, http: aiohttp.ClientSession
) -> None:
    body = {"model": "demo-small!rate_limit", "messages": [{"role": "user", "content": "x"}]}
    async with http.post(f"{base_url}/chat/completions", json=body) as answer:
        assert answer.status == 429
        assert answer.headers["retry-after-ms"] == "1000"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert (await answer.json())["error"]["code"] == "rate_limit_exceeded"


async def test_request_when_header_and_model_ask_then_the_header_wins(
    base_url: str, http: aiohttp.ClientSession
) -> None:
    body = {"model": "demo-small!status=500", "messages": [{"role": "user", "content": "x"}]}
    headers = {"x-demo-fault": "status=418"}
    async with http.post(f"{base_url}/chat/completions", json=body, headers=headers) as answer:
        assert answer.status == 418
