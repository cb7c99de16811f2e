"""The yardstick: the leanest proxy that aiohttp's server and client session make without any parsing.

No routing, no JSON, no records, no limits, no error handling: a request's body goes to the provider as it came, the
answer comes back as it is. Whatever Sidegate costs more or less than this is the price of what it does.
Run as a process of its own: `python -m bench.passthrough <upstream base>`.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

_DROPPED = frozenset({"host", "content-length", "transfer-encoding", "connection", "authorization"})


async def main(upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )

    async def relay(request: web.BaseRequest) -> web.StreamResponse:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _DROPPED]
        headers.append(("Authorization", "Bearer sk-bench"))
        url = URL(upstream + request.raw_path, encoded=True)
        async with session.request(request.method, url, headers=headers, data=await request.read()) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _DROPPED]
            if answer.content_length is not None:
                response = web.Response(status=answer.status, body=await answer.read())
                response.headers.extend(kept)
                return response
            stream = web.StreamResponse(status=answer.status)
            stream.headers.extend(kept)
            await stream.prepare(request)
            async for chunk in answer.content.iter_any():
                await stream.write(chunk)
            await stream.write_eof()
            return stream

    runner = web.ServerRunner(web.Server(relay, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()
    await session.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
