"""The data port's handler: entry point of every request of the data plane and of the management API.

Checks run from cheap to expensive: drain and limits, validation of the raw target, the routes of the management API,
then the pipeline. The target is matched and passed on exactly as received, except for operations that have a path of
our own; no upstream URL is built from decoded client input.

Failure mode: any failure before the pipeline is an error in OpenAI's format, for every path and method.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Literal

from proxy.config.schema import Config
from proxy.credentials import client_secrets, covered_text
from proxy.errors import InternalError, InvalidRequest, Overloaded, ProxyError, ShuttingDown
from proxy.exchange import Exchange, Inbound, first_values
from proxy.ingress.client_body import ClientBody
from proxy.ingress.client_request import ClientRequest
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.own_answers import add_reference, refuse
from proxy.ingress.running import Running
from proxy.ingress.serving import Serving
from proxy.metrics import Metrics
from proxy.openai.operations import check_target, match, target_of
from proxy.process.lazy import imported
from proxy.process.shedding import Shedding
from proxy.trace.record import trace_id

_log = logging.getLogger("sidegate.ingress")
_WEBSOCKET = "proxy.ingress.websocket:ClientWebsocket"
_DRAINING = "Sidegate is shutting down; send the request again."
_DRAIN_OVER = "Sidegate is shutting down and cannot wait for the rest of this answer."
_WORTH_ENDING_BYTES = 1 << 20
_REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})


class Ingress:
    """Handles requests of the data port and tracks the running ones."""

    def __init__(self, serving: Serving, metrics: Metrics, shedding: Shedding) -> None:
        self._serving = serving
        self._metrics = metrics
        self._shedding = shedding
        self._running: set[Running] = set()
        self._own: set[asyncio.Task[Any] | None] = set()
        """Tasks that answer for the management API: a drain waits for them, but they use up no limit of the data plane,
        as the part of the pool that they share bounds them (`db.pool_share`)."""
        self._draining = False
        self._idle = asyncio.Event()
        """Set when the last request has ended, while draining only."""

    def use(self, serving: Serving) -> None:
        """Answer new requests with this; running ones keep what they began with."""
        self._serving = serving

    def handle(self, request: ClientRequest) -> Awaitable[Any]:
        """Answer one request; the awaitable returns what aiohttp treats as its response."""
        serving = self._serving
        known = request.recall(serving)
        if known is None:
            return self._handle_new(request, serving)
        try:
            self._admit(serving.config)
            self._shedding.check()
        except ProxyError as error:
            return self._refuse(request, error)
        return self._exchange(request, _with_length(known, request.content_length), serving)

    async def _handle_new(self, request: ClientRequest, serving: Serving) -> Any:
        """Answer a request whose head was not seen before in this version of the configuration."""
        try:
            self._admit(serving.config)
            if request.target.startswith("/ui"):
                _check_surface(serving.config, "api")
                return add_reference(serving.api.page(request))
            path = _check_head(request)
            route = serving.api.match(request.method, path)
            _check_surface(serving.config, "data" if route is None else "api")
            if route is None:
                _check_prefix(path)
                self._shedding.check()
        except Exception as error:
            return await self._refuse(request, error)
        if route is not None:
            return await self._answer_own(request, route, serving)
        inbound = _inbound(request, path)
        request.remember(serving, inbound)
        return await self._exchange(request, inbound, serving)

    def _admit(self, config: Config) -> None:
        if self._draining:
            raise ShuttingDown(_DRAINING, retry_after_s=1.0)
        if len(self._running) >= config.limits.concurrent_requests:
            raise Overloaded(
                f"Too many requests at once: the limit is {config.limits.concurrent_requests}.",
                code="too_many_requests_in_flight",
                retry_after_s=1.0,
            )

    async def _answer_own(self, request: Any, route: Any, serving: Serving) -> Any:
        """Answer a request of the management API, to the last byte of what may be a long export.

        aiohttp would send the response only after this has returned, when nobody counts it any more. An error while it
        is sent closes the connection: no other response may follow half of one.
        """
        self._own.add(request.task)
        request.writer.stall_s = serving.config.timeouts.write_stall_s
        try:
            try:
                response = add_reference(await serving.api.handle(request, route))
            except Exception as error:
                return await self._refuse(request, error)
            if self._draining:
                response.force_close()
            await response.prepare(request)
            await response.write_eof()
            return response
        finally:
            self._own.discard(request.task)
            self._note_end()

    def _refuse(self, request: ClientRequest, error: Exception) -> Awaitable[HttpDownstream]:
        """Answer with an error. One that is not ours is a bug: it is logged, and the client learns no more."""
        if not isinstance(error, ProxyError):
            _log.error("request failed", exc_info=error)
            error = InternalError("Sidegate failed to handle the request.")
        self._metrics.count_error(error)
        return refuse(request, error)

    async def _exchange(self, request: ClientRequest, inbound: Inbound, serving: Serving) -> HttpDownstream:
        config, pipeline = serving.config, serving.pipeline
        now_ms = time.time_ns() // 1_000_000
        x = Exchange(trace_id(now_ms), now_ms, time.monotonic(), inbound)
        downstream = HttpDownstream(request, x.delivery, config.timeouts.write_stall_s)
        if request.ends_connection:
            downstream.refuse_more()
        running = Running(x, downstream, request.task)
        self._running.add(running)
        self._metrics.in_flight += 1
        serving.enter()
        try:
            if x.inbound.operation.body == "websocket":
                message_bytes, stall_s = config.limits.websocket_message_bytes, config.timeouts.write_stall_s
                client = imported(_WEBSOCKET)(request, message_bytes, stall_s)
                try:
                    await pipeline.handle_websocket(x, client, downstream)
                finally:
                    client.release()
                return downstream
            await pipeline.handle(x, ClientBody(request, config.limits), downstream)
            return downstream
        finally:
            self._running.discard(running)
            self._note_end()
            self._metrics.in_flight -= 1
            serving.leave()

    def _note_end(self) -> None:
        if self._draining and not self._running and not self._own:
            self._idle.set()

    @property
    def running(self) -> int:
        """Number of requests in the pipeline."""
        return len(self._running)

    def begin_drain(self) -> None:
        """Refuse new requests; running ones continue, and their connections are closed afterwards."""
        self._draining = True
        for one in self._running:
            one.downstream.refuse_more()

    async def until_idle(self, limit_s: float) -> None:
        """Wait until no request runs, for at most `limit_s`. Call after `begin_drain`."""
        if not self._running and not self._own:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._idle.wait()

    def end_drain(self) -> None:
        """End the running requests: each client gets an error event or a visible truncation."""
        for one in self._running:
            one.end(ShuttingDown(_DRAIN_OVER))
        for task in self._own:
            if task is not None:
                task.cancel()

    def end_largest(self, error: ProxyError) -> bool:
        """End the request that holds most memory; False if ending any would not help."""
        largest = max(self._running, key=lambda one: 0 if one.is_ending else one.held_bytes, default=None)
        if largest is None or largest.is_ending or largest.held_bytes < _WORTH_ENDING_BYTES:
            return False
        largest.end(error)
        if largest.downstream.unsent_bytes:
            largest.downstream.drop()  # an error event would queue behind what the client does not read
        return True


def _check_surface(config: Config, asked: Literal["data", "api"]) -> None:
    served = config.server.surfaces
    if served not in ("all", asked):
        raise InvalidRequest(
            "This listener serves only the data plane; the management API is served by its hub."
            if served == "data"
            else "This listener serves only the management API; models are called through a sidecar.",
            status=404,
            code="surface_not_served",
        )


def _check_prefix(path: str) -> None:
    if not path.startswith("/v1/"):
        raise InvalidRequest(
            "Unknown path. The API is served under /v1/, for example POST /v1/chat/completions.",
            status=404,
            code="unknown_path",
        )


def _check_head(request: ClientRequest) -> str:
    if request.method in _REFUSED_METHODS:
        raise InvalidRequest(f"The method {request.method} is not allowed.", status=405, code="method_not_allowed")
    return check_target(request.target)


def _inbound(request: ClientRequest, path: str) -> Inbound:
    fields = first_values(request.raw_header_lines)
    secrets = client_secrets(fields)
    operation = match(request.method, path, request.is_upgrade)
    return Inbound(
        method=request.method,
        target=target_of(operation, request.target),
        path=covered_text(path, secrets),
        headers=request.raw_header_lines,
        fields=fields,
        operation=operation,
        peer=request.remote,
        content_length=request.content_length,
        has_body=request.body_exists,
    )


def _with_length(known: Inbound, length: int | None) -> Inbound:
    """Return the stored facts of a head, for a request with another body length."""
    if length == known.content_length:
        return known
    return Inbound(
        known.method, known.target, known.path, known.headers, known.fields, known.operation, known.peer, length,
        bool(length), known.memory,
    )  # fmt: skip
