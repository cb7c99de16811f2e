"""The scanner of one channel, with faults of it handled: what cannot be scanned is refused, or passes and is counted.

`fault` records the error and raises if such answers may not pass; if it returns, the text passes unscanned, including
what the scanner has held back before.
"""

from collections.abc import Callable, Sequence

from proxy.nouns.findings import Finding
from proxy.nouns.scanners import ChannelScanner, Piece
from proxy.policy import stream_scan

Fault = Callable[[Exception], None]


class GuardedChannel:
    """Implements `scanners.ChannelScanner` around another."""

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
