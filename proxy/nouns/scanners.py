"""The interface between relays and policy: scanners of an answer while it passes.

A relay knows where generated text is and how to rewrite an event; the policy knows what to look for, which action to
take and what to record. Neither imports the other: `policy` implements the Protocols here, and relays receive an
`OutputScanner`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from proxy.nouns.findings import Finding

TextKind = Literal["text", "json"]
"""`json`: the text is itself a JSON document, such as the arguments of a tool call; a mask must not break it."""


class Piece(Protocol):
    """A part of the output: original text, or the replacement of hidden text."""

    @property
    def text(self) -> str:
        """What may be sent."""

    @property
    def taken(self) -> int:
        """How many characters of the channel it represents."""

    @property
    def masked(self) -> bool:
        """False: `text` is the original characters."""


class ChannelScanner(Protocol):
    """Scans one channel of a stream: one choice's content, one tool call's arguments."""

    @property
    def findings(self) -> list[Finding]:
        """The new findings; always the same list. Who records them takes them out: there may be half a million."""

    @property
    def blocked(self) -> Finding | None:
        """The finding that ends the answer: the pieces before it were returned, none follow."""

    def pieces(self, delta: str, final: bool = False) -> Sequence[Piece]:
        """Take the next text and return what is decided now, in order, without gaps.

        `final`: the channel ends here, so everything is decided. The concatenated pieces do not depend on how the text
        was split.
        """

    def take(self, delta: str) -> int | Sequence[Piece]:
        """Do the same as `pieces`, but return just a character count if that much text may be sent unchanged."""

    def resumed(self) -> "ChannelScanner":
        """Return a scanner for what continues the channel although it has ended: its end is the context of that."""


class ScannedText(NamedTuple):
    """The result of scanning a complete text."""

    text: str
    """As it may be sent; the same object if nothing was masked."""
    findings: Sequence[Finding] = ()
    blocked: Finding | None = None
    """The finding that forbids the answer."""


class OutputScanner(Protocol):
    """The policy for one answer; it also receives what was found and done."""

    @property
    def edits(self) -> bool:
        """False: findings are only recorded, never masked or blocked, so nothing has to wait for a decision."""

    @property
    def unscannable(self) -> Literal["allow", "deny"]:
        """What to do with parts that cannot be scanned."""

    @property
    def hold_s(self) -> float:
        """How long decided text may wait behind an undecided event."""

    @property
    def hold_bytes(self) -> int:
        """How much of it may wait."""

    @property
    def max_channels(self) -> int:
        """How many channels are scanned at once; also bounds the other state of an answer."""

    def channel(self, kind: TextKind = "text") -> ChannelScanner:
        """Return the scanner of a new channel."""

    def is_clean(self, texts: Sequence[str]) -> bool:
        """Tell whether complete texts of the kind `text` have no finding. Takes milliseconds at most.

        False: some may, or it takes longer to find out: ask `whole` for each.
        """

    def whole(self, text: str, kind: TextKind = "text") -> ScannedText:
        """Scan a complete text. The result is the one of a channel with the same text, however split."""

    def found(self, place: str, findings: Sequence[Finding]) -> None:
        """Record findings. `place`: for example `choices[0].content`."""

    def missed(self, place: str, reason: str) -> None:
        """Record that a part could not be scanned. `reason`: a word of the set in `findings.Unscanned`."""

    def hurried(self, reason: Literal["time", "size"]) -> None:
        """Record that an event was sent without its undecided end."""

    def saw(self, characters: int) -> None:
        """Record how much text was scanned. Called once per answer or event."""
