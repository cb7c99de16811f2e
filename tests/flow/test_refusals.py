"""What the proxy refuses never reaches the provider, and the refusal is an error that an SDK understands."""

import pytest

from tests.fakes.fixtures import Launch
from tests.fakes.judge import assert_error, eventually
from tests.fakes.provider import Provider
from tests.fakes.sidegate import Sidegate
from tests.fakes.wire import Wire, exchange, post, request

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'

TARGETS = [
    "/v1/../admin", "/v1/./models", "/v1/models/..", "/v1/%2e%2e/admin", "/v1/.%2E/admin", "/v1//models",
    "//evil/v1/models",
    "/v1/a\\b", "/v1/%5c..", "/v1/%252e%252e", "/v1/x%00", "/v1/x%0d%0ay", "/v1/%zz", "/v1/x%2", "/v1/files/a%2fb",
    "/v1/x;y=1", "http://169.254.169.254/v1/models", "HTTP://evil/v1/models", "/v1/caf\xe9", "/v1/x#frag",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
async def test_target_when_ambiguous_then_400_and_the_provider_sees_nothing(
    provider: Provider, sidegate: Sidegate, case: str, target: str
) -> None:
    reply = await exchange(sidegate.address, request("GET", target, case=case))
    assert reply.status in (400, 404)
    assert_error(reply, reply.status)
    assert provider.seen(case) == []


@pytest.mark.parametrize(
    "target", ["/", "/v2/models", "/metrics", "/readyz", "/v1models", "/favicon.ico", "/V1/models"]
)
async def test_path_when_not_of_the_api_then_404(
    provider: Provider, sidegate: Sidegate, case: str, target: str
) -> None:
    assert_error(await exchange(sidegate.address, request("GET", target, case=case)), 404)
    assert provider.seen(case) == []


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
async def test_method_when_not_for_a_proxy_then_refused(
    provider: Provider, sidegate: Sidegate, case: str, method: str
) -> None:
    reply = await exchange(sidegate.address, request(method, "/v1/models", case=case))
    assert reply.status in (400, 405, 501)
    assert provider.seen(case) == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_api_of_our_own_when_wrong_method_then_405(sidegate: Sidegate, case: str, method: str) -> None:
    reply = await exchange(sidegate.address, request(method, "/v1/traces", body=b"{}", case=case))
    assert_error(reply, 405)
    assert "GET" in (reply.value("allow") or "")


@pytest.mark.parametrize("key", ["", "Authorization: Bearer wrong", "Authorization: Basic eDp5", "x-api-key: a"])
async def test_api_of_our_own_when_the_key_is_wrong_then_401(
    provider: Provider, sidegate: Sidegate, case: str, key: str
) -> None:
    reply = await exchange(sidegate.address, request("GET", "/v1/traces?limit=1", *([key] if key else []), case=case))
    assert_error(reply, 401)
    assert provider.seen(case) == []


SMUGGLING = {
    "CL and TE": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "list of lengths": b"Content-Length: 2, 3\r\n\r\n{} ",
    "signed length": b"Content-Length: +2\r\n\r\n{}",
    "length with underscore": b"Content-Length: 1_0\r\n\r\n0123456789",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "space before colon": b"Content-Length : 2\r\n\r\n{}",
    "folded header": b"X-A: 1\r\n Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in a header": b"X-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "CR in a header": b"X-A: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    "bad chunk size": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "hex prefix": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk without end": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
    "two hosts": b"Host: other\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_framing_when_ambiguous_then_refused_and_the_connection_ends(
    provider: Provider, sidegate: Sidegate, case: str, rest: bytes
) -> None:
    start = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nx-case-id: {case}\r\nContent-Type: application/json\r\n"
    async with await Wire.open(sidegate.address) as wire:
        await wire.send(start.encode() + rest + request("GET", "/v1/models", case=f"{case}-smuggled"))
        reply = await wire.reply()
        assert 400 <= reply.status < 500
        assert await wire.ended() in ("cut", "reset")
    assert provider.seen(f"{case}-smuggled") == []
    assert [seen for seen in provider.seen(case) if seen.body_complete] == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "aws-chunked"])
async def test_request_when_encoded_then_415_without_inflating(
    provider: Provider, sidegate: Sidegate, case: str, coding: str
) -> None:
    reply = await exchange(
        sidegate.address,
        post("/v1/chat/completions", b"\x1f\x8b" + b"\0" * 5000, f"Content-Encoding: {coding}", case=case),
    )
    assert_error(reply, 415)
    assert provider.seen(case) == []


BODIES = {
    "cut": b'{"model": "m"',
    "trailing": b'{"model": "m"} x',
    "array": b"[]",
    "string": b'"x"',
    "NaN": b'{"temperature": NaN}',
    "infinity": b'{"temperature": -Infinity}',
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"model": "m"}',
    "overlong": b'{"model": "\xc0\xaf"}',
    "control character": b'{"model": "a\x01b"}',
    "deep": b'{"a":' * 3000 + b"1" + b"}" * 3000,
    "very deep": b"[" * 1_000_000,
    "structurals": b'{"a":[' + b"{}," * 2_100_000 + b"{}]}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_json_body_when_not_a_plain_object_then_400(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes
) -> None:
    error = assert_error(await exchange(sidegate.address, post("/v1/chat/completions", body, case=case)), 400)
    assert error["type"] == "invalid_request_error"
    assert provider.seen(case) == []


async def test_json_body_when_exactly_at_the_limit_then_it_passes_and_one_more_is_413(
    provider: Provider, launch: Launch, case: str
) -> None:
    proxy = launch(SIDEGATE__LIMITS__JSON_BODY_BYTES="4096", SIDEGATE__LIMITS__UPLOAD_BODY_BYTES="8192")
    at_limit = CHAT + b" " * (4096 - len(CHAT))
    assert (await exchange(proxy.address, post("/v1/chat/completions", at_limit, case=case))).status == 200
    chunked = f"{4097:x}\r\n".encode() + at_limit + b" \r\n0\r\n\r\n"
    for data in (
        post("/v1/chat/completions", at_limit + b" ", case=case),
        post("/v1/chat/completions", chunked, "Transfer-Encoding: chunked", case=case),
    ):
        assert_error(await exchange(proxy.address, data), 413)
    upload = request("POST", "/v1/files", "Content-Type: multipart/form-data; boundary=b", body=b"x" * 8193, case=case)
    assert_error(await exchange(proxy.address, upload), 413)
    assert len(provider.seen(case)) == 1


@pytest.mark.parametrize(
    "lines", [[f"X-Big: {'a' * 70_000}"], [f"X-{n}: 1" for n in range(500)]], ids=["long line", "many lines"]
)
async def test_head_when_too_large_then_431(
    provider: Provider, sidegate: Sidegate, case: str, lines: list[str]
) -> None:
    reply = await exchange(sidegate.address, request("GET", "/v1/models", *lines, case=case))
    assert reply.status in (400, 431)
    assert_error(reply, 431)
    assert provider.seen(case) == []


async def test_head_when_as_large_as_proxies_send_then_it_passes(sidegate: Sidegate, case: str) -> None:
    lines = [f"Authorization: Bearer {'k' * 8000}", f"baggage: {'b' * 12_000}", *(f"X-{n}: 1" for n in range(60))]
    assert (await exchange(sidegate.address, request("GET", "/v1/models", *lines, case=case))).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET  /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\r\n" * 3000,
    ],
    ids=["TLS", "HTTP/2", "HTTP/0.9", "two spaces", "HTTP/9.9", "blank lines"],
)
async def test_connection_when_not_http_1_then_refused(sidegate: Sidegate, data: bytes) -> None:
    async with await Wire.open(sidegate.address) as wire:
        await wire.send(data)
        wire.writer.write_eof()
        assert await wire.ended() in ("cut", "reset")
    eventually(sidegate.is_ready)
