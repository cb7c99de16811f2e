"""An answer comes back as the provider sent it, whatever its status, framing or content."""

import asyncio
import gzip
import json
from collections.abc import Callable

import pytest

from tests.fakes import steps
from tests.fakes.judge import assert_same
from tests.fakes.provider import Provider
from tests.fakes.sidegate import PROVIDER_KEY, Sidegate
from tests.fakes.steps import CLOSE, chunks, head, script, whole
from tests.fakes.wire import Wire, exchange, exchange_both, post, request

CHAT = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi \\ud83d\\udc4b"}],  "seed": 1e3}'
JSON = b'{ "object" : "thing",\n "usage":null , "\xc3\xa4": 1.0 }'


ANSWERS = {
    "ok": whole(JSON, "x-request-id: req_1", "openai-processing-ms: 12"),
    "no request id": whole(JSON),
    "own reason": whole(JSON, status="200 Everything fine"),
    "no reason": head("200 ", "Content-Length: 2") + b"{}",
    "created": whole(JSON, status="201 Created", content_type="application/json; charset=utf-8"),
    "teapot": whole(b"short and stout", status="418 I'm a teapot", content_type="text/plain"),
    "error html": whole(b"<h1>bad gateway</h1>", status="502 Bad Gateway", content_type="text/html"),
    "error without body": whole(b"", status="503 Service Unavailable", content_type=""),
    "unknown status": whole(JSON, status="599 Odd"),
    "rate limit": whole(
        b'{"error":{"message":"slow","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
        "retry-after: 3", "retry-after-ms: 2500", "x-should-retry: true", "x-ratelimit-limit-requests: 60",
        status="429 Too Many Requests",
    ),
    "repeated headers": whole(JSON, "X-A: 1", "x-b: 2", "X-a: 3", "X-A:", "Vary: a", "Vary: b", "Link: <a>, <b>"),
    "latin-1 header": whole(JSON, "x-name: caf\xe9"),
    "redirect": whole(b"", "Location: http://127.0.0.1:1/elsewhere?x=1", status="307 Temporary Redirect"),
    "moved": whole(b"<a>", "Location: /v1/other", status="301 Moved Permanently", content_type="text/html"),
    "no content": b"HTTP/1.1 204 No Content\r\nx-request-id: r\r\n\r\n",
    "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
    "chunked json": head("200 OK", "Transfer-Encoding: chunked") + chunks([JSON[:9], JSON[9:]]) + steps.LAST_CHUNK,
    "chunk extensions": head("200 OK", "Transfer-Encoding: chunked") + b"2;a=b\r\n{}\r\n0;x\r\n\r\n",
    "empty chunked": head("200 OK", "Transfer-Encoding: chunked") + steps.LAST_CHUNK,
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + whole(JSON),
    "many continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + whole(JSON),
    "claims gzip": whole(b"this is not gzip", "Content-Encoding: gzip"),
    "binary": whole(bytes(range(256)) * 300, content_type="audio/mpeg"),
    "odd reason": whole(JSON, status="200 Sch\xf6n \xc3\xa4"),
    "no type": whole(b"\x00\x01", content_type=""),
    "odd type": whole(b"data: 1", content_type="text/event-stream-like"),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/unknown/endpoint"])
async def test_answer_when_whole_then_it_is_the_providers(
    provider: Provider, sidegate: Sidegate, case: str, path: str, answer: bytes
) -> None:
    provider.on(case, script(answer))
    direct, through = await exchange_both(provider.address, sidegate.address, post(path, CHAT, case=case))
    assert_same(direct, through)
    assert len(provider.seen(case)) == 2


ASKED = {
    "plain": ("POST", lambda case: post("/v1/chat/completions", CHAT, case=case)),
    "stream": ("POST", lambda case: post("/v1/chat/completions", b'{"stream": true, "messages": []}', case=case)),
    "head": ("HEAD", lambda case: request("HEAD", "/v1/models", case=case)),
    "chunked": ("POST", lambda case: request("POST", "/v1/x", "Transfer-Encoding: chunked", case=case) + CHUNKED),
}
CHUNKED = chunks([b"abc", b"\r\n\r\nGET "]) + steps.LAST_CHUNK


@pytest.mark.parametrize("together", [False, True], ids=["after", "together"])
@pytest.mark.parametrize(("method", "asked"), ASKED.values(), ids=ASKED.keys())
async def test_connection_when_any_answer_came_on_it_then_the_next_answer_is_its_own(
    provider: Provider, sidegate: Sidegate, case: str, method: str, asked: Callable[[str], bytes], together: bool
) -> None:
    for number, answer in enumerate(ANSWERS.values()):
        first, second = f"{case}-{number}", f"{case}-{number}-next"
        provider.on(first, script(answer))
        follows = post("/v1/chat/completions", CHAT, case=second)
        async with asyncio.timeout(20), await Wire.open(sidegate.address) as wire:
            await wire.send(asked(first) + follows if together else asked(first))
            assert (await wire.reply(method)).ending == "complete"
            if not together:
                await wire.send(follows)
            assert json.loads((await wire.reply()).body)["id"] == f"chatcmpl-{second}"


async def test_answer_when_delimited_by_close_then_body_is_the_same(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    provider.on(case, script(head("200 OK", content_type="audio/wav"), b"RIFF", 0.02, b"more", CLOSE))
    direct, through = await exchange_both(
        provider.address, sidegate.address, post("/v1/audio/speech", b'{"input":"x"}', case=case)
    )
    assert (through.status, through.body) == (200, direct.body)


async def test_answer_when_http_1_0_then_body_is_the_same(provider: Provider, sidegate: Sidegate, case: str) -> None:
    provider.on(case, script(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", CLOSE))
    _, through = await exchange_both(provider.address, sidegate.address, post("/v1/completions", CHAT, case=case))
    assert (through.status, through.body, through.version) == (200, b"old", "HTTP/1.1")


async def test_answer_when_provider_sets_private_headers_then_the_client_never_sees_them(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    lines = (
        "Set-Cookie: session=1",
        "Alt-Svc: h3",
        "Connection: X-Hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=9",
        "x-ok: 1",
    )
    provider.on(case, script(whole(b"{}", *lines, "Proxy-Authenticate: Basic", f"x-echo: Bearer {PROVIDER_KEY}")))
    reply = await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    assert {name.lower() for name, _ in reply.headers} & {
        "set-cookie",
        "alt-svc",
        "x-hop",
        "proxy-authenticate",
    } == set()
    assert PROVIDER_KEY.encode() not in reply.head
    assert reply.value("x-ok") == "1"


async def test_answer_when_gzip_then_bytes_pass_and_usage_is_read(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    document = {"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 321, "completion_tokens": 45}}
    packed = gzip.compress(json.dumps(document).encode())
    provider.on(case, script(whole(packed, "Content-Encoding: gzip", "Vary: Accept-Encoding")))
    data = post("/v1/chat/completions", CHAT, "Accept-Encoding: gzip, deflate", case=case)
    direct, through = await exchange_both(provider.address, sidegate.address, data)
    assert_same(direct, through)
    trace = sidegate.trace(through.trace_id)
    assert (trace["inputTokens"], trace["outputTokens"], trace["usageSource"]) == (321, 45, "provider")
