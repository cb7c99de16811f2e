"""The provider receives the request as the client sent it, but for framing, credentials and identity."""

import json

import pytest

from tests.fakes.judge import assert_same, assert_same_request
from tests.fakes.provider import Provider
from tests.fakes.sidegate import PROVIDER_KEY, Sidegate
from tests.fakes.steps import LAST_CHUNK, chunk, head, script
from tests.fakes.wire import exchange, exchange_both, post, request

CHAT = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}],  "seed": 1e3}'
JSON = b'{ "object" : "thing" }'


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_method_when_on_any_path_then_it_reaches_the_provider(
    provider: Provider, sidegate: Sidegate, case: str, method: str
) -> None:
    body = b"" if method == "HEAD" else JSON
    answer = head("200 OK", f"Content-Length: {len(JSON)}") + body
    provider.on(case, script(answer))
    sent = CHAT if method in ("POST", "PUT", "PATCH") else None
    lines = ("Content-Type: application/json",) if sent else ()
    direct, through = await exchange_both(
        provider.address, sidegate.address, request(method, "/v1/things/thing-1", *lines, body=sent, case=case)
    )
    assert_same(direct, through)
    assert_same_request(*provider.seen(case))
    if method == "HEAD":
        assert through.value("content-length") == str(len(JSON))


TARGETS = [
    "/v1/models?b=2&a=1&a=%20x&empty=&plus=a+b&u=%C3%A4",
    "/v1/files?limit=10&after=file-1&order=desc&",
    "/v1/unknown/thing/",
    "/v1/models/ft:gpt-4o-mini:org:name:id",
    "/v1/models/org%2Fname",
    "/v1/files/file%20name",
    "/v1/x~y/_z-0/(1)/a@b,c=d/$&'*+!",
    "/v1/threads/thread_1/runs/run_1/steps?include[]=a&include[]=b",
    "/v1/things?redirect=http://a/b/../c//d",
    "/v1/things?",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_target_when_allowed_then_it_is_passed_on_unchanged(
    provider: Provider, sidegate: Sidegate, case: str, target: str
) -> None:
    await exchange(sidegate.address, request("GET", target, case=case))
    assert [seen.target for seen in provider.seen(case)] == [target]


BODIES = {
    "spaces": b' {"model" :"m",\t"messages":[] , "a":1.50, "big":123456789012345678901234567890}\n',
    "escapes": b'{"model":"m","messages":[{"role":"user","content":"\\u00e4\\ud83d\\ude00 \\/ \\b"}]}',
    "utf-8": '{"model":"m","messages":[{"role":"user","content":"ä世界👋"}]}'.encode(),
    "lone surrogate": b'{"model":"m","messages":[{"role":"user","content":"cut \\ud83d"}]}',
    "empty object": b"{}",
    "usage asked": b'{"model":"m","stream":false,"stream_options":{"include_usage":true}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_json_body_when_unambiguous_then_the_provider_gets_its_bytes(
    provider: Provider, sidegate: Sidegate, case: str, body: bytes
) -> None:
    await exchange_both(
        provider.address,
        sidegate.address,
        post("/v1/chat/completions", body, "Accept: */*", "X-Odd-CASE: a", case=case),
    )
    assert_same_request(*provider.seen(case))


async def test_json_body_when_keys_repeat_then_the_provider_gets_one_meaning(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = b'{"model":"cheap","messages":[],"model":"dear","n":12345678901234567890123,"f":1.10}'
    await exchange(sidegate.address, post("/v1/chat/completions", body, case=case))
    (seen,) = provider.seen(case)
    assert json.loads(seen.body) == json.loads(body)
    assert seen.body.count(b'"model"') == 1


async def test_request_headers_when_passed_on_then_credentials_and_identity_stay_behind(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    lines = (
        "User-Agent: OpenAI/Python 2.54.0", "X-Stainless-Retry-Count: 1", "OpenAI-Beta: a=v1", "X-Twice: 1",
        "X-Twice: 2", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Idempotency-Key: k1",
        "Authorization: Bearer sk-client", "api-key: sk-client", "Cookie: a=b", "OpenAI-Organization: org-x",
        "OpenAI-Project: proj-x", "X-Sidegate-User: ada", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4",
        "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=1", "Proxy-Authorization: Basic eA==",
    )  # fmt: skip
    await exchange(sidegate.address, post("/v1/chat/completions", CHAT, *lines, case=case))
    (seen,) = provider.seen(case)
    kept = [(name, value) for name, value in seen.headers if name.lower() not in (b"host", b"content-length")]
    assert (b"Authorization", f"Bearer {PROVIDER_KEY}".encode()) in [(n.title(), v) for n, v in kept]
    assert [(n, v) for n, v in kept if n.lower() != b"authorization"] == [
        (b"x-case-id", case.encode()),
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"OpenAI/Python 2.54.0"),
        (b"X-Stainless-Retry-Count", b"1"),
        (b"OpenAI-Beta", b"a=v1"),
        (b"X-Twice", b"1"),
        (b"X-Twice", b"2"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"Idempotency-Key", b"k1"),
    ]
    assert seen.values(b"host") == [f"127.0.0.1:{provider.port}".encode()]


async def test_request_when_headers_are_few_then_none_are_added(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    await exchange_both(provider.address, sidegate.address, request("GET", "/v1/models", case=case))
    direct, through = provider.seen(case)
    names = [name.lower() for name, _ in through.headers]
    assert sorted(names) == sorted([*(name.lower() for name, _ in direct.headers), b"authorization"])


async def test_accept_encoding_when_client_sends_none_then_none_is_added(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    await exchange(sidegate.address, post("/v1/chat/completions", CHAT, "Accept-Encoding: br, gzip;q=0.5", case=case))
    none, filtered = (seen.values(b"accept-encoding") for seen in provider.seen(case))
    assert none == []
    assert filtered == [b"gzip;q=0.5"]


async def test_multipart_when_uploaded_then_bytes_are_the_same(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    body = (
        b'--b0und\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b0und\r\nContent-Disposition: form-data; name="file"; filename="a b.jsonl"\r\n\r\n\x00\xff\r\n--b0und--\r\n'
    )
    data = request("POST", "/v1/files", "Content-Type: multipart/form-data; boundary=b0und", body=body, case=case)
    direct, through = await exchange_both(provider.address, sidegate.address, data)
    assert_same(direct, through)
    assert_same_request(*provider.seen(case))


async def test_chunked_request_when_sent_then_body_arrives_whole(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    framed = chunk(CHAT[:10]) + chunk(CHAT[10:]) + LAST_CHUNK
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    reply = await exchange(sidegate.address, request("POST", "/v1/chat/completions", *lines, body=framed, case=case))
    assert reply.status == 200
    assert provider.seen(case)[0].body == CHAT


async def test_connections_when_requests_follow_each_other_then_they_are_reused(
    provider: Provider, sidegate: Sidegate, case: str
) -> None:
    for _ in range(20):
        await exchange(sidegate.address, post("/v1/chat/completions", CHAT, case=case))
    assert len({seen.connection for seen in provider.seen(case)}) <= 2
