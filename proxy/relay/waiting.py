"""Which events hold the text that a channel's scanner has not decided, and what is decided of it.

    channel   0        6        11        17      characters of the channel
              |--------|---------|----~~~~|       texts in three events; ~ not decided
                                 ^ the third is open: its event waits

Rule of the file: places and lengths only; when an event leaves is decided in `scanned`. All characters that a scanner
takes are accounted for, each in the event it came in, until an event has to leave without its rest.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from proxy.openai.channels import Path
from proxy.scanners import ChannelScanner, Piece

Raw = TypeVar("Raw")


class Item(Generic[Raw]):
    """One event on its way."""

    __slots__ = (
        "changed",
        "data",
        "document",
        "edits",
        "is_queued",
        "is_withheld",
        "open",
        "raw",
        "since",
        "size",
        "waiting",
    )

    def __init__(self, raw: Raw, data: bytes, document: Any, size: int) -> None:
        self.raw = raw
        self.size = size
        self.data = data
        self.document = document
        self.waiting: list[Waiting[Raw]] = []
        """Its texts that were not decided at once."""
        self.open = 0
        """How many of them are not decided yet."""
        self.changed = False
        """One of them leaves otherwise than it came."""
        self.edits: dict[Path, str] | None = None
        """Texts that came whole and hold a finding, as they may leave."""
        self.is_queued = False
        self.is_withheld = False
        """It holds a text that came whole and is blocked."""
        self.since = 0.0

    @property
    def holds_blocked(self) -> bool:
        """True where the finding that ends the answer begins in this event."""
        return self.is_withheld or any(waiting.channel.scanner.blocked is not None for waiting in self.still_open())

    @property
    def says_something(self) -> bool:
        """True where the event, cut to what is decided, is more than an empty frame."""
        return self.open < len(self.waiting) or any(waiting.says_something for waiting in self.waiting)

    def still_open(self) -> "list[Waiting[Raw]]":
        """Return its texts that are not decided yet."""
        return [waiting for waiting in self.waiting if waiting.is_open]

    def changes(self) -> dict[Path, str]:
        """Return the texts that leave otherwise than they came."""
        if not self.changed:
            return self.edits or {}
        changed = {waiting.path: waiting.leaves() for waiting in self.waiting if waiting.changed}
        return changed | self.edits if self.edits else changed


class Waiting(Generic[Raw]):
    """A text in an event, from character `start` to `end` of its channel, and what is decided of it."""

    __slots__ = ("_out", "_written", "changed", "channel", "end", "item", "path", "start", "text")

    def __init__(self, channel: "Channel[Raw]", item: Item[Raw], path: Path, text: str, end: int) -> None:
        self.channel = channel
        self.item = item
        self.path = path
        self.text = text
        self.start = end - len(text)
        self.end = end
        self.changed = False
        """What leaves is not what came."""
        self._out = ""
        """What leaves of the text up to its character `_written`; all behind that leaves as it came."""
        self._written = 0
        item.waiting.append(self)
        item.open += 1

    @property
    def is_open(self) -> bool:
        """True while not all of it is decided."""
        return self.end > self.channel.decided

    @property
    def says_something(self) -> bool:
        """True where any of it leaves that is decided."""
        return bool(self._out) or self.channel.decided - self.start > self._written

    def mask(self, at: int, mask: str) -> None:
        """Put a mask at the place `at` of the channel."""
        self._out += self.text[self._written : at - self.start] + mask
        self.leave_out(at)

    def leave_out(self, until: int) -> None:
        """Let nothing leave up to the place `until` but what is noted already."""
        self._written = until - self.start
        self.changed = self.item.changed = True

    def cut(self) -> str:
        """End the text where it is not decided; return what is cut off."""
        at = self.channel.decided - self.start
        rest, self.text = self.text[at:], self.text[:at]
        self.end = self.channel.decided
        self.item.open -= 1
        self.changed = self.item.changed = True
        return rest

    def leaves(self) -> str:
        """Return the text as it leaves."""
        return self._out + self.text[self._written :]


class Channel(Generic[Raw]):
    """One channel: its scanner, and the texts it has not decided."""

    __slots__ = ("_open", "decided", "fed", "last", "name", "noted", "rest", "scanner")

    def __init__(self, name: str, scanner: ChannelScanner) -> None:
        self.name = name
        self.scanner = scanner
        self.fed = 0
        self.decided = 0
        self.noted = 0
        """How many of its findings are on record."""
        self.rest = ""
        """What is not decided and whose event has left; it goes before the next text of the channel."""
        self.last: tuple[Item[Raw], Path]
        """The event that `rest` came in, and where."""
        self._open: deque[Waiting[Raw]] = deque()

    def take(self, text: str) -> int | Sequence[Piece]:
        """Show the next text to the scanner; return what is decided: pieces, or how many characters just leave."""
        self.fed += len(text)
        return self.scanner.pieces(text) if self.rest else self.scanner.take(text)

    def wait_for(self, path: Path, text: str, item: Item[Raw]) -> None:
        """Note the text that was just shown to the scanner, after whatever is left from before."""
        self._adopt(item, path, self.rest + text)

    def adopt(self, item: Item[Raw]) -> None:
        """Give what is left to an event of its own."""
        self._adopt(item, self.last[1], self.rest)

    def let_pass(self, count: int) -> int:
        """Decide that characters leave as they came; return how many events that wait are decided now."""
        self.decided += count
        ready = 0
        while self._open and self._open[0].end <= self.decided:
            item = self._open.popleft().item
            item.open -= 1
            ready += item.is_queued and not item.open
        return ready

    def place(self, piece: Piece) -> int:
        """Hand out what was decided to the events it stands for; return how many that wait are decided now.

        A mask stands where the finding begins; what it hides further on leaves a gap.
        """
        waiting_texts, until, ready = self._open, self.decided + piece.taken, 0
        if piece.masked and waiting_texts:
            waiting_texts[0].mask(self.decided, piece.text)
        while waiting_texts and self.decided < until:
            waiting = waiting_texts[0]
            self.decided = min(until, waiting.end)
            if piece.masked:
                waiting.leave_out(self.decided)
            if self.decided == waiting.end:
                del waiting_texts[0]
                item = waiting.item
                item.open -= 1
                ready += item.is_queued and not item.open
        return ready

    def pass_rest_on(self, waiting: Waiting[Raw]) -> None:
        """Take what is not decided away from the first event that waits: it goes on with the next one."""
        rest = waiting.cut()
        del self._open[0]
        if self._open:
            following = self._open[0]
            following.text = rest + following.text
            following.start -= len(rest)
            following.changed = following.item.changed = True
        else:
            self.rest = rest
            self.last = waiting.item, waiting.path

    def _adopt(self, item: Item[Raw], path: Path, text: str) -> None:
        waiting = Waiting(self, item, path, text, self.fed)
        if self.rest:
            waiting.changed = item.changed = True
            self.rest = ""
        self._open.append(waiting)
