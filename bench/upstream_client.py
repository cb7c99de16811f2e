"""Measure what a request and a streamed chunk cost in each kind of upstream client: CPU time of this process alone.

The provider runs in a process of its own and speaks raw bytes. Usage: python -m bench.upstream_client
"""

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Awaitable, Callable

import uvloop

from proxy.config import schema
from proxy.exchange import UpstreamRequest
from proxy.upstream.client import Client, make_client
from proxy.upstream.headers import request_headers, response_headers

REQUESTS, CONNECTIONS = 4000, 16
STREAMS, CHUNKS, CHUNK_PAUSE_S = 20, 200, 0.005
KINDS = ("lean", "aiohttp")

_DOCUMENT = b'{"id":"chatcmpl-1","choices":[' + b"x" * 548 + b"]}"
_ANSWER_HEAD = b"".join(
    b"%b: %b\r\n" % field
    for field in [
        (b"Date", b"Mon, 23 Nov 2026 07:00:00 GMT"), (b"Server", b"cloudflare"), (b"x-request-id", b"req_0123456789"),
        (b"openai-organization", b"org"), (b"openai-processing-ms", b"12"), (b"openai-version", b"2020-10-01"),
        (b"x-ratelimit-limit-requests", b"10000"), (b"x-ratelimit-limit-tokens", b"2000000"),
        (b"x-ratelimit-remaining-requests", b"9999"), (b"x-ratelimit-remaining-tokens", b"1999999"),
        (b"x-ratelimit-reset-requests", b"6ms"), (b"x-ratelimit-reset-tokens", b"0s"), (b"CF-RAY", b"0123-FRA"),
    ]
)  # fmt: skip
_JSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    % (_ANSWER_HEAD, len(_DOCUMENT))
    + _DOCUMENT
)
_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%bTransfer-Encoding: chunked\r\n\r\n" % _ANSWER_HEAD
_CHUNK = b"aa\r\n" + b"data: " + b"x" * 162 + b"\n\n\r\n"
_HEADERS = [
    (b"Accept", b"application/json"), (b"Accept-Encoding", b"gzip, deflate"), (b"Content-Type", b"application/json"),
    (b"User-Agent", b"OpenAI/Python 2.8.0"), (b"X-Stainless-Lang", b"python"), (b"X-Stainless-OS", b"Linux"),
    (b"X-Stainless-Package-Version", b"2.8.0"), (b"X-Stainless-Arch", b"x64"), (b"X-Stainless-Runtime", b"CPython"),
    (b"X-Stainless-Runtime-Version", b"3.11.7"), (b"X-Stainless-Async", b"false"), (b"Connection", b"keep-alive"),
    (b"x-stainless-retry-count", b"0"), (b"x-stainless-read-timeout", b"600"), (b"Authorization", b"Bearer client"),
    (b"Host", b"localhost"), (b"Content-Length", b"300"), (b"traceparent", b"00-00000000-0000-01"),
]  # fmt: skip


async def _provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if b"/stream" not in head:
                writer.write(_JSON)
                continue
            writer.write(_SSE)
            for _ in range(CHUNKS):
                await asyncio.sleep(CHUNK_PAUSE_S)
                writer.write(_CHUNK)
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _serve(listener: socket.socket) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_provide, sock=listener)
        await server.serve_forever()

    uvloop.run(run())


def _request(base_url: str, path: str) -> UpstreamRequest:
    headers = request_headers(_HEADERS, authorization=b"Bearer provider", extra=())
    return UpstreamRequest("POST", base_url + path, headers, b"x" * 300)


async def _requests(client: Client, base_url: str) -> None:
    async def worker() -> None:
        for _ in range(REQUESTS // CONNECTIONS):
            reply = await client.send(_request(base_url, "/json"))
            while await reply.read():
                pass
            reply.close()

    await asyncio.gather(*[worker() for _ in range(CONNECTIONS)])


async def _streams(client: Client, base_url: str) -> None:
    async def worker() -> None:
        reply = await client.send(_request(base_url, "/stream"))
        while await reply.read():
            pass
        reply.close()

    await asyncio.gather(*[worker() for _ in range(STREAMS)])


async def _measure(kind: str, base_url: str, work: Callable[[Client, str], Awaitable[None]], units: int) -> float:
    client = make_client(
        schema.Upstream(base_url=base_url), schema.UpstreamClient.model_validate({"kind": kind}), schema.Timeouts()
    )
    await work(client, base_url)
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        await work(client, base_url)
        best = min(best, time.process_time() - start)
    await client.close()
    return best / units * 1e6


def _measure_headers() -> None:
    answer = [(name, b"value") for name, _ in _HEADERS]
    for label, run in (
        ("request_headers", lambda: request_headers(_HEADERS, authorization=b"Bearer provider", extra=())),
        ("response_headers", lambda: response_headers(answer, secrets=(b"provider",))),
    ):
        start = time.process_time()
        for _ in range(20_000):
            run()
        print(f"{label}: {(time.process_time() - start) / 20_000 * 1e6:.1f} us for {len(_HEADERS)} fields")


def main() -> None:
    """Print the cost of each kind and their ratio."""
    listener = socket.create_server(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    provider = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,), daemon=True)
    provider.start()
    try:
        for label, work, units in (
            ("request", _requests, REQUESTS),
            ("streamed chunk", _streams, STREAMS * CHUNKS),
        ):
            costs = {kind: uvloop.run(_measure(kind, base_url, work, units)) for kind in KINDS}
            ratio = costs["aiohttp"] / costs["lean"]
            print(f"{label}: lean {costs['lean']:.0f} us, aiohttp {costs['aiohttp']:.0f} us, ratio {ratio:.1f}")
        _measure_headers()
    finally:
        provider.terminate()


if __name__ == "__main__":
    main()
