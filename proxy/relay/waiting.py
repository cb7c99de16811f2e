"""Which events hold the text that a channel's scanner has not decided, and what is decided of it.

    channel   0        6        11        17      characters of the channel
              |--------|---------|----~~~~|       texts in three events; ~ not decided
                                 ^ the third is open: its event waits

Rule of the file: places and lengths only; when an event leaves is decided in `scanned`. All characters that a scanner
takes are accounted for, each in the event it came in, until an event has to leave without its rest.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from proxy.openai.channels import Path, Text
from proxy.scanners import ChannelScanner, Piece

Raw = TypeVar("Raw")


class Item(Generic[Raw]):
    """One event on its way."""

    __slots__ = ("data", "document", "edits", "is_queued", "is_withheld", "open", "raw", "since", "size", "waiting")

    def __init__(self, raw: Raw, data: bytes, document: Any, size: int) -> None:
        self.raw = raw
        self.size = size
        self.data = data
        self.document = document
        self.waiting: list[Waiting[Raw]] = []
        """Its texts that were not decided at once."""
        self.open: list[Waiting[Raw]] = []
        """Those that are not decided yet."""
        self.edits: dict[Path, str] = {}
        """Texts that came whole and hold a finding, as they may leave."""
        self.is_queued = False
        self.is_withheld = False
        """It holds a text that came whole and is blocked."""
        self.since = 0.0

    @property
    def holds_blocked(self) -> bool:
        """True where the finding that ends the answer begins in this event."""
        return self.is_withheld or any(waiting.channel.scanner.blocked is not None for waiting in self.open)

    @property
    def says_something(self) -> bool:
        """True where the event, cut to what is decided, is more than an empty frame."""
        return len(self.open) < len(self.waiting) or any(any(waiting.out) for waiting in self.waiting)


class Waiting(Generic[Raw]):
    """A text in an event, from character `start` to `end` of its channel, and what is decided of it."""

    __slots__ = ("changed", "channel", "end", "item", "out", "path", "start", "text")

    def __init__(self, channel: "Channel[Raw]", item: Item[Raw], path: Path, text: str, end: int) -> None:
        self.channel = channel
        self.item = item
        self.path = path
        self.text = text
        self.start = end - len(text)
        self.end = end
        self.out: list[str] = []
        self.changed = False
        """What leaves is not what came."""
        item.waiting.append(self)
        item.open.append(self)


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

    @property
    def is_even(self) -> bool:
        """True where nothing waits: what is decided at once is then the whole text of its event."""
        return not self._open and not self.rest

    def wait_for(self, text: Text, item: Item[Raw]) -> None:
        """Note the text that was just shown to the scanner, after whatever is left from before."""
        self._adopt(item, text.path, self.rest + text.text)

    def adopt(self, item: Item[Raw]) -> None:
        """Give what is left to an event of its own."""
        self._adopt(item, self.last[1], self.rest)

    def place(self, piece: Piece) -> Iterable[Item[Raw]]:
        """Write a piece into the events it stands for; yield those of which it decides a text.

        A mask stands where the finding begins; what it hides further on leaves a gap.
        """
        rest = piece.taken
        if piece.masked and self._open:
            self._open[0].out.append(piece.text)
            self._open[0].changed = True
        while rest > 0 and self._open:
            waiting = self._open[0]
            taken = min(rest, waiting.end - self.decided)
            if piece.masked:
                waiting.changed = True
            else:
                at = self.decided - waiting.start
                waiting.out.append(waiting.text[at : at + taken])
            self.decided += taken
            rest -= taken
            if self.decided == waiting.end:
                self._open.popleft()
                waiting.item.open.remove(waiting)
                yield waiting.item

    def pass_rest_on(self, waiting: Waiting[Raw]) -> None:
        """Take what is not decided away from the first event that waits: it goes on with the next one."""
        rest = waiting.text[self.decided - waiting.start :]
        self._open.popleft()
        waiting.changed = True
        waiting.item.open.remove(waiting)
        if self._open:
            following = self._open[0]
            following.text = rest + following.text
            following.start -= len(rest)
            following.changed = True
        else:
            self.rest = rest
            self.last = waiting.item, waiting.path

    def _adopt(self, item: Item[Raw], path: Path, text: str) -> None:
        waiting = Waiting(self, item, path, text, self.fed)
        waiting.changed = bool(self.rest)
        self._open.append(waiting)
        self.rest = ""
