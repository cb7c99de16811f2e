"""A scanner of answers that handles internal faults: what cannot be scanned is refused, or passes and is counted.

`fault` records the error and raises if such answers may not pass; if it returns, the text passes unscanned, including
what the scanner has held back before.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from proxy.nouns.findings import Finding
from proxy.nouns.scanners import ChannelScanner, OutputScanner, Piece, ScannedText, TextKind
from proxy.policy import stream_scan

Fault = Callable[[Exception], None]


class GuardedOutput:
    """One answer."""

    def __init__(self, scanner: OutputScanner, fault: Fault) -> None:
        self.edits = scanner.edits
        self.unscannable: Literal["allow", "deny"] = scanner.unscannable
        self.hold_s = scanner.hold_s
        self.hold_bytes = scanner.hold_bytes
        self.max_channels = scanner.max_channels
        self.hurried = scanner.hurried
        self.found = scanner.found
        self.missed = scanner.missed
        self.saw = scanner.saw
        self._scanner = scanner
        self._fault = fault

    def channel(self, kind: TextKind = "text") -> "GuardedChannel":
        """Return the scanner of a new channel."""
        return GuardedChannel(self._scanner.channel(kind), self._fault)

    def is_clean(self, texts: Sequence[str]) -> bool:
        """Tell whether complete plain texts have no finding; False if that fails, as a closer look will."""
        try:
            return self._scanner.is_clean(texts)
        except Exception:
            return False

    def whole(self, text: str, kind: TextKind = "text") -> ScannedText:
        """Scan a complete text. Raises what `fault` raises."""
        try:
            return self._scanner.whole(text, kind)
        except Exception as error:
            self._fault(error)
            return ScannedText(text)


class GuardedChannel:
    """One channel of an answer."""

    __slots__ = ("_failed", "_fault", "_scanner", "_take", "_untaken", "findings")

    def __init__(self, scanner: ChannelScanner, fault: Fault) -> None:
        self.findings = scanner.findings
        """The new findings."""
        self._scanner = scanner
        self._take = scanner.take
        self._fault = fault
        self._failed = False
        self._untaken = ""
        """Text that the scanner was given and has not decided."""

    @property
    def blocked(self) -> Finding | None:
        """The finding that ends the answer."""
        return self._scanner.blocked

    def pieces(self, delta: str, final: bool = False) -> Sequence[Piece]:
        """Take the next text and return what is decided now. Raises what `fault` raises."""
        text = self._untaken + delta
        if not self._failed:
            try:
                pieces = self._scanner.pieces(delta, final)
            except Exception as error:
                self._failed = True
                self._fault(error)
            else:
                self._untaken = text[sum([piece.taken for piece in pieces]) :]
                return pieces
        self._untaken = ""
        return [stream_scan.Piece(text, len(text))] if text else []

    def take(self, delta: str) -> int | Sequence[Piece]:
        """Do the same as `pieces`, but return just a character count if that much text may be sent unchanged."""
        if not self._failed:
            try:
                told = self._take(delta)
            except Exception as error:
                self._failed = True
                self._fault(error)
            else:
                if self._untaken or told != len(delta):
                    taken = told if isinstance(told, int) else sum([piece.taken for piece in told])
                    self._untaken = (self._untaken + delta)[taken:]
                return told
        text, self._untaken = self._untaken + delta, ""
        return len(text)

    def resumed(self) -> "GuardedChannel":
        """Return a scanner for what continues the channel after its end."""
        return GuardedChannel(self._scanner.resumed(), self._fault)
