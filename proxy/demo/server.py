"""The demo upstream as an aiohttp application: life, routes, and the order of the steps.

Rules of the file: what an answer says is decided in `chat`, `responses` and `embeddings`, how it leaves in `delivery`.
A bill is written when a request ends, however it ends: a client that leaves is billed for what was sent. Nothing of a
request is logged.
"""

import asyncio
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.demo import chat, embeddings, responses
from proxy.demo.call import Call, Refusal, error_document, is_count, read_call
from proxy.demo.delivery import send_stream, send_whole
from proxy.demo.events import DONE
from proxy.demo.ledger import Bill, Ledger
from proxy.demo.reply import Reply, compose, read_prompt

Answer = Callable[[Call], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES: Final = 128 * 1024 * 1024
SHUTDOWN_S: Final = 1.0
LEDGER: Final = web.AppKey("ledger", Ledger)


class DemoUpstream:
    """A demo upstream inside this process, on a loopback port of its own."""

    def __init__(self) -> None:
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; return the base URL, with `/v1`."""
        self._runner = await serve("127.0.0.1", 0)
        return f"http://{address(self._runner)}/v1"

    async def stop(self) -> None:
        """Stop listening and drop what is still running. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def serve(host: str, port: int) -> web.AppRunner:
    """Listen on `host` and `port` (0: any free one); `cleanup()` of the runner ends it."""
    runner = web.AppRunner(make_application(), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def run(host: str, port: int) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status."""
    asyncio.run(_run(host, port))
    return 0


async def _run(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = await serve(host, port)
    where = address(runner)
    sys.stderr.write(f"demo upstream: http://{where}/v1, what it billed: http://{where}/demo/ledger\n")
    sys.stderr.flush()
    await stop.wait()
    await runner.cleanup()


def address(runner: web.AppRunner) -> str:
    """Return host and port of the first socket, as they stand in a URL."""
    host, port = runner.addresses[0][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def make_application() -> web.Application:
    """Return the application with an empty ledger."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[LEDGER] = Ledger()
    app.router.add_post("/v1/chat/completions", _billed(_chat))
    app.router.add_post("/v1/completions", _billed(_completions))
    app.router.add_post("/v1/responses", _billed(_responses))
    app.router.add_post("/v1/embeddings", _billed(_embeddings))
    app.router.add_post("/v1/moderations", _billed(_moderations))
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/v1/models/{name:.+}", _model)
    app.router.add_get("/demo/ledger", _ledger)
    app.router.add_route("*", "/{path:.*}", _unknown)
    return app


def _billed(answer: Answer) -> Handler:
    """Read body and fault, let `answer` work, and write the bill whatever happens."""

    async def handle(request: web.Request) -> web.StreamResponse:
        bill = Bill(f"req_{secrets.token_hex(16)}", request.path, "", False, request.headers.get("x-demo-marker"))
        try:
            return await answer(await read_call(request, bill))
        except Refusal as refusal:
            bill.status = refusal.status
            headers = {"x-request-id": bill.request_id, **refusal.headers}
            return _json(refusal.document, refusal.status, headers)
        finally:
            request.app[LEDGER].add(bill)

    return handle


async def _chat(call: Call) -> web.StreamResponse:
    messages = call.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "Missing required parameter: 'messages'.", "missing_required_parameter", "messages")
    prompt = read_prompt(messages, call.body.get("tools"), call.body.get("tool_choice"))
    limit = call.max_tokens("max_completion_tokens", "max_tokens")
    replies = [compose(prompt, choice, limit) for choice in range(call.choices())]
    head = call.head("chatcmpl-", prompt)
    if call.bill.stream:
        return await send_stream(call, [*chat.frames(head, replies, call.include_usage()), DONE])
    return await send_whole(call, chat.document(head, replies), _count(replies))


async def _completions(call: Call) -> web.StreamResponse:
    prompt = read_prompt(embeddings.read_inputs(call.body.get("prompt", "")), None, None)
    replies = [compose(prompt, choice, call.max_tokens("max_tokens")) for choice in range(call.choices())]
    head = call.head("cmpl-", prompt)
    if call.bill.stream:
        return await send_stream(call, [*chat.text_frames(head, replies, call.include_usage()), DONE])
    return await send_whole(call, chat.text_document(head, replies), _count(replies))


async def _responses(call: Call) -> web.StreamResponse:
    asked = call.body.get("input", "")
    items = asked if isinstance(asked, list) else [asked]
    prompt = read_prompt(items, call.body.get("tools"), call.body.get("tool_choice"))
    reply = compose(prompt, 0, call.max_tokens("max_output_tokens"))
    head = call.head("resp_", prompt)
    if call.bill.stream:
        return await send_stream(call, responses.frames(head, reply, call.body, not call.fault.no_usage))
    return await send_whole(call, responses.document(head, reply, call.body), _count([reply]))


async def _embeddings(call: Call) -> web.StreamResponse:
    inputs = embeddings.read_inputs(call.body.get("input", ""))
    dimensions = call.body.get("dimensions") or embeddings.DIMENSIONS
    if not is_count(dimensions) or dimensions > embeddings.MAX_DIMENSIONS:
        raise Refusal(400, f"dimensions must be between 1 and {embeddings.MAX_DIMENSIONS}.", param="dimensions")
    as_base64 = call.body.get("encoding_format") == "base64"
    document = embeddings.document(call.bill.model, inputs, dimensions, as_base64)
    call.bill.input_tokens = embeddings.count_tokens(inputs)
    return await send_whole(call, document, 0)


async def _moderations(call: Call) -> web.StreamResponse:
    inputs = embeddings.read_inputs(call.body.get("input", ""))
    name = f"modr-{secrets.token_hex(12)}"
    return await send_whole(call, embeddings.moderation(name, call.bill.model, inputs), 0)


async def _models(request: web.Request) -> web.Response:
    listed = [embeddings.model(name) for name in embeddings.MODELS]
    return _json({"object": "list", "data": listed})


async def _model(request: web.Request) -> web.Response:
    return _json(embeddings.model(request.match_info["name"]))


async def _ledger(request: web.Request) -> web.Response:
    return _json(request.app[LEDGER].document())


async def _unknown(request: web.Request) -> web.Response:
    """Answer what OpenAI answers to an unknown URL; the path is not repeated, it may hold anything."""
    return _json(error_document(404, "Invalid URL: see docs/demo-upstream.md.", "unknown_url"), 404)


def _json(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a document as OpenAI labels it: JSON without a charset."""
    return web.Response(body=orjson.dumps(document), status=status, headers=headers, content_type="application/json")


def _count(replies: Iterable[Reply]) -> int:
    return sum(len(reply.pieces) for reply in replies)
