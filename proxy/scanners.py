"""The seam between relays and policy: who looks at an answer while it passes.

A relay knows where generated text stands and how an event is written anew; the policy knows what to look for, what is
done about it and what is put on record. Neither imports the other: `policy` implements the Protocols here, relays are
handed an `OutputScanner`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from proxy.findings import Finding

TextKind = Literal["text", "json"]
"""`json`: the text is itself a JSON document, such as the arguments of a tool call; a mask must not break it."""


class Piece(Protocol):
    """A part of the output: text as it came, or what stands for text that is hidden."""

    @property
    def text(self) -> str:
        """What may leave."""

    @property
    def taken(self) -> int:
        """How many characters of the channel it stands for."""

    @property
    def masked(self) -> bool:
        """False: `text` is those very characters."""


class ChannelScanner(Protocol):
    """Follows one channel of a stream: one choice's content, one tool call's arguments."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found so far; the same list each time, which only ever grows."""

    @property
    def blocked(self) -> Finding | None:
        """What ends the answer: the pieces before it were given, none follow."""

    def pieces(self, delta: str, final: bool = False) -> Sequence[Piece]:
        """Take the next text and return what is decided now, in order, without gaps.

        `final`: the channel ends here, so everything is decided. All pieces put together are the same for every way of
        cutting the text.
        """

    def take(self, delta: str) -> int | Sequence[Piece]:
        """Do what `pieces` does, told shortly: how many characters leave as they came, where that is all there is."""


class ScannedText(NamedTuple):
    """A text that came whole."""

    text: str
    """As it may leave; the same object where nothing was masked."""
    findings: Sequence[Finding] = ()
    blocked: Finding | None = None
    """What forbids the answer."""


class OutputScanner(Protocol):
    """What the policy says about one answer, and where it learns what became of it."""

    @property
    def edits(self) -> bool:
        """False: things are only noted, never masked or blocked, so nothing has to wait for a decision."""

    @property
    def unscannable(self) -> Literal["allow", "deny"]:
        """What becomes of parts that no text can be read from."""

    @property
    def hold_s(self) -> float:
        """How long what is decided may wait behind an event that is not."""

    @property
    def hold_bytes(self) -> int:
        """How much of it may."""

    @property
    def max_channels(self) -> int:
        """How many channels are followed at once; what is kept per answer besides is bounded by it as well."""

    def channel(self, kind: TextKind = "text") -> ChannelScanner:
        """Return what follows a new channel."""

    def whole(self, text: str, kind: TextKind = "text") -> ScannedText:
        """Scan a text that came whole: with the result that a channel has, however the text is cut."""

    def found(self, place: str, findings: Sequence[Finding]) -> None:
        """Put findings on record. `place`: for example `choices[0].content`."""

    def missed(self, place: str, reason: str) -> None:
        """Put on record that no text could be read. `reason`: a word of the set in `findings.Unscanned`."""

    def hurried(self, reason: Literal["time", "size"]) -> None:
        """Put on record that an event had to leave without its undecided end."""

    def saw(self, characters: int) -> None:
        """Put on record how much text was looked at. Called once per answer or event."""
