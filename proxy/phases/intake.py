"""Phase 2: reads the client's body into a ParsedRequest, and yields the body that goes upstream.

JSON is read completely, validated and parsed before anything else; large bodies on a thread. Uploads (multipart, raw)
are never buffered: they stream through while an observer reads the few form fields that a trace shows. One memory
budget covers the bodies of all requests.

Failure mode: `InvalidRequest` (400, 408, 413, 415) and `Overloaded` (503), all before a provider is called; an upload
that breaks these rules later ends its attempt.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

from proxy.config.schema import Limits
from proxy.errors import InvalidRequest, Overloaded
from proxy.event_loop.off_loop import LARGE_BODY_BYTES, begin_off_loop, joined, off_loop
from proxy.exchange import BodyKind, Headers, Inbound, Operation, ParsedRequest
from proxy.openai.json_steps import LARGE_BYTES, dissolve, is_slow
from proxy.openai.multipart import NOTHING_SEEN, FormFacts, MultipartObserver
from proxy.openai.request import parse_empty, parse_json, parse_multipart
from proxy.process.memory import allow_full_collections, put_off_full_collections

_LARGE_BYTES = 65_536


class RequestBody(Protocol):
    """The client's body; can be read once."""

    async def read(self, limit_bytes: int) -> bytes:
        """Return all of it. Raises InvalidRequest (400, 408, 413)."""

    def stream(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """Yield it as it arrives. Raises as `read`."""


class Screen(Protocol):
    """Scans a body while it passes, and lets the form's observer see it. The total length does not change.

    Raises:
        PolicyViolation, PolicyUnavailable: the rest of the body must not be sent.
    """

    async def feed(self, piece: bytes) -> bytes:
        """Take a piece and return what may be sent."""

    async def finish(self) -> bytes:
        """Return the rest at the end of the body."""


class _Turn(asyncio.Lock):
    """While somebody holds it, no collection of garbage looks at all objects: there may be millions."""

    async def acquire(self) -> Literal[True]:
        await super().acquire()
        put_off_full_collections()
        return True

    def release(self) -> None:
        allow_full_collections()
        super().release()


class ByteBudget:
    """Limits the bytes that the JSON bodies of all running requests hold together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.decoding = _Turn()
        """Held while a body of many elements is decoded: it takes up to 27 times its bytes then. Others wait for their
        turn; decoding them at the same time would be no faster, and `limit_bytes` bounds how many can wait."""

    def take(self, size: int, held: int = 0) -> None:
        """Reserve `size` bytes for a body that has `held` already. Raises Overloaded if they do not fit.

        Small bodies may take an eighth more than all others together: large ones, which may wait for minutes for their
        providers, do not keep them out.
        """
        most = self.limit_bytes if held + size > LARGE_BODY_BYTES else self.limit_bytes + self.limit_bytes // 8
        if self.used_bytes + size > most:
            raise Overloaded(
                f"Request bodies in memory are limited to {self.limit_bytes} bytes together.",
                code="too_many_buffered_bytes",
                retry_after_s=1.0,
            )
        self.used_bytes += size

    def give(self, size: int) -> None:
        """Return `size` bytes."""
        self.used_bytes -= size

    @asynccontextmanager
    async def decoding_of(self, body: bytes) -> AsyncIterator[None]:
        """Hold `decoding` in the block if `body` has many elements. Another body need not wait for one that has."""
        if await _has_many(body):
            async with self.decoding:
                yield
        else:
            yield


class Intake:
    """The body of one request."""

    def __init__(self, inbound: Inbound, body: RequestBody, limits: Limits, budget: ByteBudget) -> None:
        self._inbound = inbound
        self._body = body
        self._limits = limits
        self._budget = budget
        self._held = 0
        self._is_decoding = False
        self.observer: MultipartObserver | None = None
        """Reads a form while it passes."""
        self.screen: Screen | None = None
        """Set by phase 3: scans a streamed body, and may change or end it."""
        self._seen: FormFacts | None = None
        """What `observer` had seen when it was last fed. A screen feeds it in a thread, which a cancelled exchange does
        not wait for before it is settled."""
        self.streamed_bytes = 0

    async def parse(self, *, force_usage: bool) -> ParsedRequest:
        """Return the parsed request, as far as it is known before the body is sent on."""
        inbound = self._inbound
        if not inbound.has_body:
            return parse_empty()
        kind = inbound.said(_kind, inbound.operation, inbound.headers)
        limits = self._limits
        limit_bytes = limits.json_body_bytes if kind == "json" else limits.upload_body_bytes
        if inbound.content_length is not None and inbound.content_length > limit_bytes:
            raise too_large(limit_bytes)
        if kind == "json":
            if inbound.content_length is None:
                raw = await self._read_chunks()
            else:
                self._hold(inbound.content_length)
                raw = await self._body.read(limit_bytes)
            if not raw:  # no chunk came: like a length of zero, which is no body
                return replace(parse_empty(), body=raw)
            if len(raw) <= limits.json_thread_bytes:
                return parse_json(raw, inbound.operation, limits=limits, force_stream_usage=force_usage)
            return await self._parse_apart(raw, force_usage=force_usage)
        if kind == "multipart":
            self.observer = MultipartObserver(inbound.fields.get(b"content-type", b""))
        return parse_empty(inbound.content_length or 0)

    async def _parse_apart(self, raw: bytes, *, force_usage: bool) -> ParsedRequest:
        """Parse a large body on a thread, once it is its turn if it is slow to decode."""
        if await _has_many(raw):
            await self._budget.decoding.acquire()
            self._is_decoding = True
        operation, limits = self._inbound.operation, self._limits
        understand = partial(parse_json, raw, operation, limits=limits, force_stream_usage=force_usage)
        return await off_loop(lambda: _counted(understand()))

    async def _read_chunks(self) -> bytes:
        """Return the whole body, whose length was not announced. Every byte held was granted by the budget."""
        pieces = []
        async for piece in self._body.stream(self._limits.json_body_bytes):
            self._hold(len(piece))
            pieces.append(piece)
        return await joined(pieces)

    def outgoing(self, request: ParsedRequest) -> bytes | AsyncIterator[bytes] | None:
        """Return the body for the provider; a stream can be sent only once."""
        if request.body is not None or not self._inbound.has_body:
            return request.body
        return self._pass()

    def learned(self, request: ParsedRequest) -> ParsedRequest:
        """Return `request` with what an upload has revealed while it passed."""
        if self.observer is None:
            return replace(request, request_bytes=self.streamed_bytes)
        form = parse_multipart(self._seen or NOTHING_SEEN, self.streamed_bytes)
        return replace(form, conversation=request.conversation)

    def slim(self, request: ParsedRequest) -> ParsedRequest:
        """Drop the decoded body if it is large, and let the next one be decoded."""
        request = slim(request, has_many=self._is_decoding)
        self._end_decoding()
        return request

    def close(self) -> None:
        """Release the memory."""
        self._end_decoding()
        self._budget.give(self._held)
        self._held = 0

    def _end_decoding(self) -> None:
        if self._is_decoding:
            self._is_decoding = False
            self._budget.decoding.release()

    def _hold(self, size: int) -> None:
        if self._held + size > self._budget.limit_bytes:  # too large even alone, so a retry would not help
            raise too_large(self._budget.limit_bytes)
        self._budget.take(size, self._held)
        self._held += size

    async def _pass(self) -> AsyncIterator[bytes]:
        screen = self.screen
        async for piece in self._body.stream(self._limits.upload_body_bytes):
            self.streamed_bytes += len(piece)
            passed = piece
            if screen is not None:
                passed = await screen.feed(piece)
            elif self.observer is not None:
                self.observer.feed(piece)
            if self.observer is not None:
                self._seen = self.observer.facts()
            if passed:
                yield passed
        if screen is not None and (rest := await screen.finish()):
            yield rest


async def _has_many(body: bytes) -> bool:
    """Tell whether `body` has so many elements that decoding it takes long, and much memory."""
    return len(body) > LARGE_BYTES and await off_loop(partial(is_slow, body))


def too_large(limit_bytes: int) -> InvalidRequest:
    """Return the error for a body of more than `limit_bytes`."""
    return InvalidRequest(f"The request body is larger than {limit_bytes} bytes.", status=413, code="request_too_large")


def slim(request: ParsedRequest, *, has_many: bool = False) -> ParsedRequest:
    """Drop a large decoded body: objects take up to 27 times the memory (`{},{},..`) of the bytes that are budgeted.

    A provider may take minutes to answer. The text is counted first: the intent of a large request needs that anyway.
    `has_many`: it has many elements, which a thread lets go.
    """
    if request.request_bytes <= _LARGE_BYTES or request.document is None:
        return request
    if has_many:
        begin_off_loop(partial(dissolve, request.document))
    return replace(_counted(request), document=None)


def _counted(request: ParsedRequest) -> ParsedRequest:
    """Count the text now: in a thread, where the body was read in one."""
    text_bytes = request.input_text_bytes()
    return replace(request, input_text_bytes=lambda: text_bytes)


def _is_encoded(headers: Headers) -> bool:
    codings = {value.strip().lower() for name, value in headers if name.lower() == b"content-encoding"}
    return not codings <= {b"", b"identity"}


def _kind(fields: Mapping[bytes, bytes], operation: Operation, headers: Headers) -> BodyKind:
    """Decide how to read the body: by the operations table for known operations, by media type for the rest.

    Raises:
        InvalidRequest: it is compressed, or not of the operation's type.
    """
    if b"content-encoding" in fields and _is_encoded(headers):
        raise InvalidRequest(
            "Compressed request bodies are not accepted; send the body without Content-Encoding.",
            status=415,
            code="unsupported_content_encoding",
        )
    media_type = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    is_json = media_type == b"application/json" or media_type.endswith(b"+json")
    if operation.body == "json" and not is_json and media_type:
        raise InvalidRequest(
            "This endpoint takes a JSON body; send it with Content-Type: application/json.",
            status=415,
            code="unsupported_media_type",
        )
    if is_json or (operation.body == "json" and not media_type):
        return "json"
    return "multipart" if media_type == b"multipart/form-data" else "raw"
