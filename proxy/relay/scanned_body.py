"""Relay of answers that are scanned as a whole: JSON documents, and small texts.

They are held until complete, scanned, and sent unchanged if nothing was masked; otherwise only the masked strings are
rewritten. If the policy forbids the content, the client gets an error instead. White space that a provider sends to
keep a long call alive is passed on while nothing else has arrived.

Failure mode: an answer larger than `limits.event_bytes`, or with an invalid encoding, cannot be scanned; whether it
passes is up to the policy. All but small answers are decoded, read and scanned in a thread, and other requests go on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any, Final, NamedTuple

from proxy.config.schema import Limits
from proxy.errors import UpstreamFailed
from proxy.event_loop.off_loop import LARGE_ANSWER_BYTES, MODERATE_ANSWER_BYTES, decoded_off_loop, joined, off_loop
from proxy.exchange import Dialect, Downstream, Headers
from proxy.nouns.findings import let_go
from proxy.nouns.scanners import OutputScanner, ScannedText
from proxy.openai import json_steps, lenient
from proxy.openai.channel_keys import Path
from proxy.openai.channels import Texts, Whole, place_of, read_document
from proxy.openai.decoding import Decoder
from proxy.openai.masked_text import with_names, with_texts
from proxy.openai.pieces import decoded, encoded
from proxy.openai.response import inspect_document
from proxy.relay.answer import Answer, forbidden, not_scannable
from proxy.relay.buffered import conclude, send_on
from proxy.relay.inspector import BodyInspector
from proxy.relay.sse import DECODED_PIECE_BYTES

_BLANK: Final = b" \t\r\n"
_NAME: Final[Path] = ("name",)
_TIED_TO_BYTES: Final = frozenset(
    {b"content-encoding", b"etag", b"digest", b"content-digest", b"repr-digest", b"content-md5", b"accept-ranges"}
)
"""Headers that do not apply to a changed answer."""
_new: Final = tuple.__new__
"""Creates a named tuple in half the time of its constructor (callgrind)."""


async def relay_scanned_body(
    answer: Answer, scanner: OutputScanner, downstream: Downstream, limits: Limits, *, hold_s: float
) -> None:
    """Hold one answer, scan it and send it.

    Raises:
        PolicyViolation: it is forbidden, or cannot be scanned although the policy requires it.
        UpstreamFailed: the provider's body was cut.
        ClientDisconnected: the client disconnected.
    """
    most = limits.event_bytes
    held = _Held(answer, downstream, most)
    reply = answer.reply  # it has arrived with its head, as most do, or else is waited for
    body = held.whole(await reply.read()) if reply.complete else await held.complete(hold_s)
    plain = body
    if body is not None and answer.content_encoding:
        decode = partial(_plain, answer, body, most)
        plain = decode() if len(body) <= LARGE_ANSWER_BYTES else await off_loop(decode)
    if plain is None:
        scanner.missed("body", "too_large" if body is None else "malformed")
        if scanner.unscannable == "deny":
            answer.attempt.meter.withheld = True
            raise not_scannable()
        inspector = BodyInspector(answer.dialect, answer.content_encoding, limits.inspect_bytes)
        for piece in held.pieces:
            answer.keep(piece)
            inspector.feed(piece)
        if body is None or held.is_started:
            await send_on(answer, downstream, inspector, held.pieces, is_started=held.is_started)
        else:
            await conclude(answer, inspector)
            await held.send(answer.headers, body)
        return
    is_small = len(plain) <= LARGE_ANSWER_BYTES
    masked = _scanned(answer, scanner, plain) if is_small else await _unhurried(answer, scanner, plain)
    headers, sent = (answer.headers, body or b"") if masked is None else (_for_another_body(answer.headers), masked)
    answer.keep(sent)
    answer.seal()
    await held.send(headers, sent)


class _Held:
    """What has arrived of one answer."""

    def __init__(self, answer: Answer, downstream: Downstream, limit: int) -> None:
        self.pieces: list[bytes] = []
        self.is_started = False
        """The head has been sent, and possibly white space."""
        self._answer = answer
        self._downstream = downstream
        self._limit = limit

    def whole(self, body: bytes) -> bytes:
        """Take a body that came in one piece; return it."""
        if body:
            self._count(body)
            self.pieces.append(body)
        return body

    async def complete(self, hold_s: float) -> bytes | None:
        """Return the whole body; `None` if it is too large to be held."""
        size = 0
        async for piece in self._read(hold_s):
            if self.is_started and not self.pieces and not piece.strip(_BLANK):
                await self._write(piece)
                continue
            self.pieces.append(piece)
            size += len(piece)
            if size > self._limit and not self._answer.reply.complete:
                return None
        body = await joined(self.pieces)
        self.pieces = [body] if body else []
        return body

    def send(self, headers: Headers, body: bytes) -> Awaitable[None]:
        """Return an awaitable that sends the answer, or the part that was not sent yet."""
        if self.is_started:
            return self._finish(body)
        answer = self._answer
        return self._downstream.send(answer.status, answer.reply.reason, headers, body)

    async def _finish(self, rest: bytes) -> None:
        await self._downstream.write(rest)
        await self._downstream.finish()

    async def _read(self, hold_s: float) -> AsyncIterator[bytes]:
        """Yield the pieces of the body; once `hold_s` is over, pass leading white space on."""
        reply = self._answer.reply
        give_up_at: float | None = asyncio.get_running_loop().time() + hold_s
        while True:
            try:
                if reply.complete or give_up_at is None:
                    piece = await reply.read()
                else:  # only when there is something to wait for: a timer costs 2 % of a request
                    async with asyncio.timeout_at(give_up_at):
                        piece = await reply.read()
            except TimeoutError:
                give_up_at = None
                await self._start()
                continue
            if not piece:
                return
            self._count(piece)
            yield piece

    def _count(self, piece: bytes) -> None:
        self._answer.note_first_byte()
        self._answer.attempt.meter.response_bytes += len(piece)

    async def _start(self) -> None:
        blanks = b"".join(self.pieces)
        if blanks.strip(_BLANK) or self._answer.content_encoding:
            return
        answer = self._answer
        self.is_started = True
        self.pieces.clear()
        await self._downstream.start(answer.status, answer.reply.reason, answer.headers, None)
        await self._write(blanks)

    async def _write(self, blanks: bytes) -> None:
        self._answer.keep(blanks)
        await self._downstream.write(blanks)


def _plain(answer: Answer, body: bytes, limit: int) -> bytes | None:
    """Return the body with its encoding removed; `None` if that is impossible or expands too much."""
    decoder, pieces, size = Decoder(answer.content_encoding, DECODED_PIECE_BYTES), [], 0
    try:
        for piece in decoder.feed(body):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                return None
    except UpstreamFailed:
        return None
    return b"".join(pieces) if decoder.complete else None


class _Read(NamedTuple):
    """A body that has been read."""

    plain: bytes
    """As it was received, but for the encodings of its bytes."""
    document: Any
    """What it says as JSON; `None` if it is a text."""
    texts: Texts
    charset: str
    """Of JSON, as it was received."""


async def _unhurried(answer: Answer, scanner: OutputScanner, plain: bytes) -> bytes | None:
    """Do the same as `_scanned` in a thread; a body of moderate size mostly is clean at a glance."""
    if len(plain) > MODERATE_ANSWER_BYTES:
        return await decoded_off_loop(partial(_scanned, answer, scanner, plain))
    read = _read(answer, plain)
    texts, is_read = read.texts, read.document is not None or not answer.is_json
    if is_read and not texts.missed and not texts.names and all(whole.kind == "text" for whole in texts.wholes):
        if scanner.is_clean([whole.text for whole in texts.wholes]):
            scanner.saw(sum(len(whole.text) for whole in texts.wholes))
            return None
    return await off_loop(partial(_masked, answer, scanner, read))


def _scanned(answer: Answer, scanner: OutputScanner, plain: bytes) -> bytes | None:
    """Read the body. Return it with masks, `None` if it may be sent unchanged; record the findings.

    Raises:
        PolicyViolation: it is forbidden.
    """
    read = _read(answer, plain)
    try:
        return _masked(answer, scanner, read)
    finally:
        json_steps.let_go(read.document, read.plain)


def _read(answer: Answer, plain: bytes) -> _Read:
    """Read the texts of a body; read usage and the like from it."""
    document, charset = lenient.read_container(plain), "utf-8"
    if document is None and answer.is_json:
        in_utf8, found = lenient.in_utf8(plain)
        if found != charset and (document := lenient.read_container(in_utf8)) is not None:
            plain, charset = in_utf8, found
    inspect_document(answer.dialect, document, answer.attempt.meter)
    return _new(_Read, (plain, document, _texts(answer.dialect, plain, document), charset))


def _masked(answer: Answer, scanner: OutputScanner, read: _Read) -> bytes | None:
    """Scan what was read; return and raise what `_scanned` does."""
    texts, meter = read.texts, answer.attempt.meter
    if read.document is None and answer.is_json and read.plain.strip(_BLANK):
        scanner.missed("body", "malformed")
        if scanner.unscannable == "deny" and b"\0" in read.plain:  # it may be text in an encoding that is not known
            meter.withheld = True
            raise not_scannable()
    scanner.saw(sum([len(whole.text) for whole in texts.wholes]))
    found = _looked_at(scanner, texts.wholes + [Whole(_NAME, name, "text") for name in texts.names])
    if not found and not texts.missed:  # nearly always
        return None
    masked: dict[Path, str] = {}
    renamed: dict[str, str] = {}
    for whole, result in found:
        place = place_of(whole.path) or "body"
        scanner.found(place, result.findings)
        let_go(result.findings)
        if result.blocked is not None:
            meter.withheld = True
            raise forbidden(place, result.blocked)
        if whole.path is _NAME:
            renamed[whole.text] = result.text
        else:
            masked[whole.path] = result.text
    for path in texts.missed[:1]:
        scanner.missed(place_of(path), "media")
    if texts.missed and scanner.unscannable == "deny":
        meter.withheld = True
        raise not_scannable()
    return _edited(read, masked, renamed) if scanner.edits and (masked or renamed) else None


def _edited(read: _Read, masked: dict[Path, str], renamed: dict[str, str]) -> bytes:
    """Return the body with other texts, and other names of members, in the charset that it came in."""
    if read.document is None:
        return encoded(masked[()], "surrogateescape")
    data = with_texts(read.plain, read.document, masked) if masked else read.plain
    data = with_names(data, renamed) if renamed else data
    return data if read.charset == "utf-8" else data.decode().encode(read.charset)


def _looked_at(scanner: OutputScanner, wholes: list[Whole]) -> list[tuple[Whole, ScannedText]]:
    """Scan texts one by one; return those with findings."""
    found = []
    for whole in wholes:
        result = scanner.whole(whole.text, whole.kind)
        if result.findings or result.blocked is not None:
            found.append((whole, result))
            if result.blocked is not None:
                break
    return found


def _texts(dialect: Dialect, plain: bytes, document: Any) -> Texts:
    if document is not None:
        return read_document(dialect, document)
    texts = Texts()
    texts.wholes.append(Whole((), decoded(plain, "surrogateescape"), "text"))
    return texts


def _for_another_body(headers: Headers) -> Headers:
    return tuple(header for header in headers if header[0].lower() not in _TIED_TO_BYTES)
