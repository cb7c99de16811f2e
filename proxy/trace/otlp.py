"""Exports spans to a collector over OTLP/HTTP: in batches, from a bounded queue, with retries where they can help.

    put --> queue --batch_spans, or after batch_delay_s--> export --2xx--------------> done; rejected ones are counted
             | full: dropped, counted                       ^  |----429, 502, 503, 504, no answer: wait and retry
                                                            '--'    until retry_s is over
                                                               '---any other status--> dropped, counted

Rule of the file: nothing here may delay or fail a request; lost spans are counted by reason. The end of the process
waits for one last export of the queue, at most `timeout_s`.

Source: OTLP specification 1.9, "OTLP/HTTP Response", "Retryable Response Codes", "OTLP/HTTP Throttling".
"""

import asyncio
import gzip
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version
from typing import Final, Literal, NamedTuple, Protocol

from proxy.config.otel import Otel
from proxy.metrics import Sample
from proxy.trace.protobuf import attributes, fields, message, text

Reason = Literal["queue_full", "unreachable", "refused", "rejected"]
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_log = logging.getLogger("sidegate.otel")


class Answer(NamedTuple):
    """A collector's answer. `status` 0: none."""

    status: int
    body: bytes = b""
    retry_after: str | None = None


class Poster(Protocol):
    """What sends a body over HTTP."""

    async def post(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, str | None]:
        """Return status (0: no answer), body and `Retry-After`. Raises nothing."""

    async def close(self) -> None:
        """Drop the connection."""


class Outbox:
    """The queue and its only sender. `make`: creates the poster for the configured address; may raise OSError."""

    def __init__(self, settings: Otel, make: Callable[[Otel], Poster]) -> None:
        self._settings = settings
        self._make = make
        self._queue: deque[bytes] = deque()
        self._poster: Poster | None = None
        self._of_poster: Otel | None = None
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_failing = False
        self.exported = 0
        """Spans that a collector accepted."""
        self.dropped: dict[Reason, int] = {"queue_full": 0, "unreachable": 0, "refused": 0, "rejected": 0}

    def follow(self, settings: Otel) -> None:
        """Apply a changed configuration. Queued spans go to the new address."""
        self._settings = settings

    def put(self, spans: Sequence[bytes]) -> None:
        """Queue spans; those that do not fit are dropped."""
        room = self._settings.queue_spans - len(self._queue)
        if len(spans) > room:
            self.dropped["queue_full"] += len(spans)
            return
        self._queue.extend(spans)
        self._idle.clear()
        if len(self._queue) == len(spans) or len(self._queue) >= self._settings.batch_spans:
            self._wake.set()

    async def run(self) -> None:
        """Export until cancelled. Costs nothing while nothing is queued."""
        try:
            while True:
                await self._wake.wait()
                await self._until_worth_it()
                while self._queue and (self._hurry.is_set() or len(self._queue) >= self._settings.batch_spans):
                    await self._export(self._take())
                if self._queue:
                    await self._export(self._take())
                if not self._queue:
                    self._wake.clear()
                    self._idle.set()
        finally:
            await self._close_poster()

    async def flush(self) -> None:
        """Export the queue, each batch once, and return when that is done or `timeout_s` is over."""
        self._hurry.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout_s):
                await self._idle.wait()
        if self._queue:
            self.dropped["unreachable"] += len(self._queue)
            _log.warning("spans were not exported before the end", extra={"count": len(self._queue)})

    def samples(self) -> Iterable[Sample]:
        """Return the metrics; none while spans are disabled."""
        if self._settings.url is None:
            return
        yield Sample("counter", "sidegate_otel_spans_exported", "Spans that the collector accepted.", {}, self.exported)
        text = "Dropped spans, by reason."
        for reason, count in self.dropped.items():
            yield Sample("counter", "sidegate_otel_spans_dropped", text, {"reason": reason}, count)
        yield Sample("gauge", "sidegate_otel_queue_spans", "Spans waiting for export.", {}, len(self._queue))

    async def _until_worth_it(self) -> None:
        """Wait for a whole batch, or as long as a span may wait for more."""
        until = time.monotonic() + self._settings.batch_delay_s
        while len(self._queue) < self._settings.batch_spans and not self._hurry.is_set():
            self._wake.clear()
            left = until - time.monotonic()
            if left <= 0 or not await self._woken(left):
                return

    async def _woken(self, limit_s: float) -> bool:
        """Wait until there is more in the queue, or it has to be fast; False after `limit_s`."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._wake, self._hurry)]
        done, pending = await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        return bool(done)

    def _take(self) -> list[bytes]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), self._settings.batch_spans))]

    async def _export(self, spans: list[bytes]) -> None:
        """Send one batch, with retries as long as they can help."""
        body = await self._packed(spans)
        until, pause_s = time.monotonic() + self._settings.retry_s, _FIRST_PAUSE_S
        while True:
            answer = await self._post(body)
            if 200 <= answer.status < 300:
                return self._accept(len(spans), answer)
            if answer.status not in _RETRYABLE and answer.status:
                return self._give_up(len(spans), "refused", answer.status)
            wait_s = _asked_for(answer.retry_after)
            if wait_s is None:
                wait_s = pause_s * random.uniform(0.5, 1.0)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if self._hurry.is_set() or time.monotonic() + wait_s > until:
                return self._give_up(len(spans), "unreachable", answer.status)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._hurry.wait()

    async def _packed(self, spans: list[bytes]) -> bytes:
        """Return the body of an export."""
        settings = self._settings
        own = _version()
        named = {"service.name": settings.service_name, "service.version": own, **settings.resource_attributes}
        sdk = {"telemetry.sdk.name": "sidegate", "telemetry.sdk.language": "python", "telemetry.sdk.version": own}
        resource = message(1, attributes(1, {**named, **sdk}.items()))
        scope = message(1, text(1, "sidegate") + text(2, own))
        body = message(1, resource + message(2, scope + b"".join([message(2, span) for span in spans])))
        return await asyncio.to_thread(gzip.compress, body, 6) if settings.compression == "gzip" else body

    def _accept(self, count: int, answer: Answer) -> None:
        rejected, said = _partial_success(answer.body)
        rejected = min(rejected, count)
        self.exported += count - rejected
        self.dropped["rejected"] += rejected
        if rejected or said:
            _log.warning("the collector rejected spans", extra={"count": rejected, "reason": said[:200]})
        if self._is_failing:
            _log.info("spans are exported again")
        self._is_failing = False

    def _give_up(self, count: int, reason: Reason, status: int) -> None:
        self.dropped[reason] += count
        if not self._is_failing:  # once, not for every batch of an outage
            _log.warning("spans cannot be exported", extra={"reason": reason, "status": status or None})
        self._is_failing = True

    async def _post(self, body: bytes) -> Answer:
        settings = self._settings
        if self._poster is None or self._of_poster is not settings:
            await self._close_poster()
            try:
                self._poster, self._of_poster = self._make(settings), settings
            except OSError:  # its certificates cannot be read
                return Answer(0)
        headers = {"Content-Type": "application/x-protobuf", "User-Agent": f"sidegate/{_version()}", **settings.headers}
        if settings.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
        return Answer(*await self._poster.post(headers, body))

    async def _close_poster(self) -> None:
        poster, self._poster = self._poster, None
        if poster is not None:
            await poster.close()


@cache
def _version() -> str:
    return version("sidegate")


def _asked_for(retry_after: str | None) -> float | None:
    """Return the seconds that the collector asks to wait, `None` if it does not say."""
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max((at - datetime.now(UTC)).total_seconds(), 0.0) if at.tzinfo is not None else None


def _partial_success(body: bytes) -> tuple[int, str]:
    """Return how many spans the collector rejected, and why."""
    rejected, said = 0, ""
    try:
        for number, value in fields(body):
            if number == 1 and isinstance(value, bytes):
                for inner, part in fields(value):
                    if inner == 1 and isinstance(part, int):
                        rejected = part
                    elif inner == 2 and isinstance(part, bytes):
                        said = part.decode("utf-8", "replace")
    except ValueError:
        return 0, ""
    return rejected, said
