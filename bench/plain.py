"""The other yardstick: a pass-through as one would write it in an afternoon, with aiohttp's defaults.

An `Application` with one route, a `ClientSession`, asyncio's own event loop, no access log; nothing is parsed, recorded
or limited. `bench.passthrough` is the same idea with everything tuned away that can be.
Run as a process of its own: `python -m bench.plain <upstream base>`.
"""

import asyncio
import sys

import aiohttp
from aiohttp import web

_DROPPED = frozenset({"host", "content-length", "transfer-encoding", "connection", "authorization"})


async def main(upstream: str) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def relay(request: web.Request) -> web.StreamResponse:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
            headers["Authorization"] = "Bearer sk-bench"
            body = await request.read()
            async with session.request(
                request.method, upstream + request.path_qs, headers=headers, data=body
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
                response = web.StreamResponse(status=answer.status, headers=kept)
                response.content_length = answer.content_length
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", relay)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
