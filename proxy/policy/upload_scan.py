"""Phase 3 for streamed bodies: text in forms and raw bodies, scanned as it passes.

    piece of the body -> spans of its parts -> one StreamScanner per part -> bytes that may be sent now

Bytes are treated as characters (Latin-1), so any superset of ASCII can be read and every byte restored. The output has
the announced length of the input: masks are padded with stars to the size of the secret. A finding to be blocked ends
the upload before any byte of it was sent.

Heads of parts, with names of fields and files, and what stands before the first and behind the last part are texts too:
a provider that finds other boundaries than we do sees nothing that was not scanned.

Parts that begin like media, archives or documents are not text, nor is what follows a NUL: both pass and are reported
(`binary`). A body that is labelled as a form but is not one is read as one text.

Rule of the file: bytes in, bytes out, no I/O. Memory is bounded by what the scanners hold back.
Source: RFC 7578.
"""

from typing import Final

from proxy.nouns.findings import Sighting, Unscanned, Verdict
from proxy.openai.binary import begins_as_binary, is_undecided
from proxy.openai.multipart import MultipartObserver
from proxy.policy import places
from proxy.policy.policy import Policy
from proxy.policy.refusal import denied, violation
from proxy.policy.stream_scan import StreamScanner

_MASK_FILL: Final = "*"
_FORM: Final = "form"
"""The place of what is in a form and in no content."""
_PART: Final = 1 << 16
"""A text is scanned part by part: of one of nothing but findings, all of them were freed at once, for 40 ms."""


class UploadScan:
    """One body in transit. `observer`: reads the form, `None` for a raw body; it must `follow` already."""

    def __init__(
        self, policy: Policy, verdict: Verdict, observer: MultipartObserver | None, *, denies_unscannable: bool
    ) -> None:
        self._policy = policy
        self._verdict = verdict
        self._observer = observer
        self._denies = denies_unscannable
        self._held = b""
        self._at = 0
        self._part: _PartScan | None = None

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes, show them to the observer, and return those that may be sent. Raises PolicyViolation."""
        if self._observer is None:
            return self._content("body", piece)
        self._observer.feed(piece)
        self._held += piece
        spans, known = self._observer.spans()
        out: list[bytes] = []
        for span in spans:
            place = _FORM if span.part is None else places.name((span.part,))
            between = self._take(span.start)  # framing, which holds no text
            out += (between, self._content(place, self._take(span.stop)))
            if span.is_last:
                out.append(self._end_part())
        if self._observer.is_broken:
            if self._held:
                self._miss("", "malformed")
                self._observer = None
                out.append(self._content("body", self._take(self._at + len(self._held))))
        else:
            out.append(self._take(known))
        return b"".join(out)

    def finish(self) -> bytes:
        """Return what was held back, at the end of the body. Raises PolicyViolation."""
        rest = self._content("body", self._take(self._at + len(self._held)))
        return rest + self._end_part()

    def _take(self, stop: int) -> bytes:
        """Return the held bytes up to offset `stop` of the form."""
        size = max(stop - self._at, 0)
        taken, self._held = self._held[:size], self._held[size:]
        self._at += len(taken)
        return taken

    def _content(self, place: str, data: bytes) -> bytes:
        if not data:
            return b""
        if self._part is None:
            self._part = _PartScan(self._policy, self._verdict, place)
        sent = self._part.feed(data)
        if self._part.is_binary and not self._part.is_named:
            self._part.is_named = True
            self._miss(self._part.place, "binary")
        return sent

    def _end_part(self) -> bytes:
        part, self._part = self._part, None
        return b"" if part is None else part.finish()

    def _miss(self, place: str, reason: str) -> None:
        self._verdict.miss(Unscanned("prompt", place, reason))
        if self._denies:
            raise denied(place, reason)


class _PartScan:
    """The content of one part."""

    def __init__(self, policy: Policy, verdict: Verdict, place: str) -> None:
        self.place = place
        self.is_binary = False
        self.is_named = False
        self._policy = policy
        self._verdict = verdict
        self._scanner: StreamScanner | None = None
        self._head = b""
        """The first bytes, as long as they do not tell whether the part is text."""

    def feed(self, data: bytes) -> bytes:
        if not self.is_binary and self._scanner is None:
            data, self._head = self._head + data, b""
            if is_undecided(data):
                self._head = data
                return b""
            self.is_binary = begins_as_binary(data)
        return data if self.is_binary else self._scanned(data)

    def finish(self) -> bytes:
        """Return what was held back."""
        head, self._head = self._head, b""
        begun = self._scanned(head) if head else b""
        left = b"" if self._scanner is None else self._pass("", final=True)
        self._scanner = None
        return begun + left

    def _scanned(self, data: bytes) -> bytes:
        if self._scanner is None:
            self._scanner = self._policy.prompt_plan.scanner()
        text, nul, rest = data.partition(b"\0")
        self._verdict.saw("prompt", len(text))
        passed = self._pass(text.decode("latin-1"), final=False)
        if not nul:
            return passed
        self.is_binary = True
        return b"".join((passed, self.finish(), nul, rest))

    def _pass(self, text: str, *, final: bool) -> bytes:
        parts = [self._passed(text[at : at + _PART], final=final) for at in range(0, len(text) or 1, _PART)]
        return b"".join(parts)

    def _passed(self, text: str, *, final: bool) -> bytes:
        scanner = self._scanner
        assert scanner is not None
        sent = [
            piece.text[: piece.taken].ljust(piece.taken, _MASK_FILL) if piece.masked else piece.text
            for piece in scanner.pieces(text, final)
        ]
        for finding in scanner.findings:
            self._verdict.add(Sighting(finding, self._policy.prompt(finding), "prompt", self.place))
        scanner.findings.clear()
        if scanner.blocked is not None:
            raise violation(Sighting(scanner.blocked, "block", "prompt", self.place), (scanner.blocked.rule_id,))
        return "".join(sent).encode("latin-1")
