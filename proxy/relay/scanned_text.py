"""Relay of texts that are scanned as they pass: transcripts, subtitles, lines of JSON, HTML.

A piece is sent when it arrives, except for the few characters that the scanner has not decided; a large one is scanned
in a thread. Forbidden text visibly truncates the answer before its first byte: such formats have no way to report an
error.

Failure mode: bytes that are not UTF-8 pass unchanged. What only begins as text and has a NUL is binary from there on.
Constant memory. Source: Python's `surrogateescape`, PEP 383.
"""

import codecs
from collections.abc import Iterable
from functools import partial

from proxy.errors import PolicyViolation
from proxy.event_loop.off_loop import LARGE_BYTES, off_loop
from proxy.exchange import Downstream
from proxy.nouns.scanners import OutputScanner
from proxy.openai.decoding import Decoder
from proxy.relay.answer import Answer, forbidden, not_scannable
from proxy.relay.sse import DECODED_PIECE_BYTES, check_complete, without_encoding

_PLACE = "body"


async def relay_scanned_text(answer: Answer, scanner: OutputScanner, downstream: Downstream) -> None:
    """Send a text as it arrives.

    Raises:
        PolicyViolation: the policy forbids what comes next.
        UpstreamFailed: the provider's body was cut; the head has been sent already.
        ClientDisconnected: the client disconnected.
    """
    meter, text = answer.attempt.meter, _ScannedText(scanner, may_be_binary=answer.begins_as_text)
    encoding = answer.content_encoding
    decoder = Decoder(encoding, DECODED_PIECE_BYTES) if encoding else None
    headers = without_encoding(answer.headers) if encoding else answer.headers
    await downstream.start(answer.status, answer.reply.reason, headers, None)
    while piece := await answer.reply.read():
        answer.note_first_byte()
        meter.response_bytes += len(piece)
        for plain in (piece,) if decoder is None else decoder.feed(piece):
            scan = partial(text.feed, plain)
            ready = scan() if len(plain) <= LARGE_BYTES else await off_loop(scan)
            answer.keep(ready)
            await _write(answer, downstream, text, ready)
    if decoder is not None:
        check_complete(decoder, answer)
    rest = text.feed(b"", final=True)
    meter.terminated = text.error is None
    answer.keep(rest)
    if meter.terminated:
        answer.seal()
    await _write(answer, downstream, text, rest)
    await downstream.finish()


async def _write(answer: Answer, downstream: Downstream, text: "_ScannedText", data: bytes) -> None:
    if data:
        await downstream.write(data)
    if text.error is not None:
        answer.reply.close()
        answer.attempt.meter.withheld = True
        raise text.error


class _ScannedText:
    """One text, split anywhere, even inside a character. `may_be_binary`: only its beginning says that it is one."""

    def __init__(self, scanner: OutputScanner, *, may_be_binary: bool) -> None:
        self._scanner = scanner
        self._may_be_binary = may_be_binary
        self._is_binary = False
        self._channel = scanner.channel()
        self._edits = scanner.edits
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._held = ""

    @property
    def error(self) -> PolicyViolation | None:
        """Why the answer ends here."""
        if (found := self._channel.blocked) is not None:
            return forbidden(_PLACE, found)
        return not_scannable() if self._is_binary and self._scanner.unscannable == "deny" else None

    def feed(self, data: bytes, *, final: bool = False) -> bytes:
        """Take bytes and return what may be sent now."""
        if self._is_binary:
            return data
        text, nul, rest = data.partition(b"\0") if self._may_be_binary else (data, b"", b"")
        passed = self._scanned(text, final=final or bool(nul))
        if not nul or self.error is not None:
            return passed
        self._is_binary = True
        self._scanner.missed(_PLACE, "binary")
        return passed if self.error is not None else b"".join((passed, nul, rest))

    def _scanned(self, data: bytes, *, final: bool) -> bytes:
        text = self._decoder.decode(data, final)
        self._scanner.saw(len(text))
        out = "".join(self._decided(text, final=False)) if text else ""
        out += "".join(self._decided("", final=True)) if final else ""
        if found := self._channel.findings:
            self._scanner.found(_PLACE, found)
            found.clear()
        return out.encode("utf-8", "surrogateescape")

    def _decided(self, text: str, *, final: bool) -> Iterable[str]:
        pieces = self._channel.pieces(text, final)
        if not self._edits:
            yield text
            return
        self._held += text
        for piece in pieces:
            yield piece.text if piece.masked else self._held[: piece.taken]
            self._held = self._held[piece.taken :]
