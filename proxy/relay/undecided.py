"""Which events contain the text that a channel's scanner has not decided, and how the decided part is sent.

    channel   0        6        11        17      characters of the channel
              |--------|---------|----~~~~|       texts in three events; ~ not decided
                                 ^ the third is open: its event waits

Rule of the file: positions and lengths only; `scanned` decides when an event is sent. Every character that a scanner
takes is attributed to the event it came in, until an event has to be sent without its rest.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from proxy.nouns.scanners import ChannelScanner, Piece
from proxy.openai import json_steps, lenient
from proxy.openai.channel_keys import Path

UNREAD: Final = object()
Raw = TypeVar("Raw")
T = TypeVar("T")


class Item(Generic[Raw]):
    """One event on its way."""

    __slots__ = (
        "_document",
        "changed",
        "data",
        "edits",
        "is_queued",
        "is_withheld",
        "names",
        "open",
        "raw",
        "since",
        "size",
        "waiting",
    )

    def __init__(self, raw: Raw, data: bytes, document: Any, size: int) -> None:
        """`document`: decoded `data`; `UNREAD`, or any of a large event: to be decoded when it is needed."""
        self.raw = raw
        self.size = size
        self.data = data
        self._document = UNREAD if document is not None and len(data) > json_steps.LARGE_BYTES else document
        self.waiting: list[Waiting[Raw]] = []
        """Those of its texts that were not decided at once."""
        self.open = 0
        """How many of them are still undecided."""
        self.changed = False
        """One of them is sent in a changed form."""
        self.edits: dict[Path, str] | None = None
        """Complete texts with a finding, in the form in which they may be sent."""
        self.names: dict[str, str] | None = None
        """The same of names of members."""
        self.is_queued = False
        self.is_withheld = False
        """It contains a complete text that is blocked."""
        self.since = 0.0

    @property
    def is_json(self) -> bool:
        """False: the data is a text."""
        return self._document is not None

    def read(self, use: Callable[[Any], T]) -> T:
        """Return what `use` makes of the decoded data; that is `None` if it is not JSON.

        That of a large event is never kept: whoever holds it last would free it at once, on the event loop.
        """
        if self._document is not UNREAD:
            return use(self._document)
        document = lenient.read_container(self.data)
        if len(self.data) <= json_steps.LARGE_BYTES:
            self._document = document
            return use(document)
        try:
            return use(document)
        finally:
            json_steps.let_go(document, self.data)

    @property
    def holds_blocked(self) -> bool:
        """True if the finding that ends the answer begins in this event."""
        return self.is_withheld or any(waiting.channel.scanner.blocked is not None for waiting in self.still_open())

    @property
    def says_something(self) -> bool:
        """True if the event, cut to its decided text, is more than an empty frame."""
        return self.open < len(self.waiting) or any(waiting.says_something for waiting in self.waiting)

    def still_open(self) -> "list[Waiting[Raw]]":
        """Return its texts that are still undecided."""
        return [waiting for waiting in self.waiting if waiting.is_open]

    def changes(self) -> dict[Path, str]:
        """Return the texts that are sent in a changed form."""
        if not self.changed:
            return self.edits or {}
        changed = {waiting.path: waiting.leaves() for waiting in self.waiting if waiting.changed}
        return changed | self.edits if self.edits else changed


class Waiting(Generic[Raw]):
    """A text in an event, from character `start` to `end` of its channel, and what was decided about it."""

    __slots__ = ("_out", "_written", "changed", "channel", "end", "item", "path", "start", "text")

    def __init__(self, channel: "Channel[Raw]", item: Item[Raw], path: Path, text: str, end: int) -> None:
        self.channel = channel
        self.item = item
        self.path = path
        self.text = text
        self.start = end - len(text)
        self.end = end
        self.changed = False
        """The text is sent in a changed form."""
        self._out: list[str] = []
        """Output for the text up to its character `_written`; the rest is sent unchanged. In pieces, as a large text
        with many masks would be copied for each of them."""
        self._written = 0
        item.waiting.append(self)
        item.open += 1

    @property
    def is_open(self) -> bool:
        """True while some of it is undecided."""
        return self.end > self.channel.decided

    @property
    def says_something(self) -> bool:
        """True if any decided part of it is sent."""
        return any(self._out) or self.channel.decided - self.start > self._written

    def mask(self, at: int, mask: str) -> None:
        """Insert a mask at position `at` of the channel."""
        self._out += (self.text[self._written : at - self.start], mask)
        self.leave_out(at)

    def leave_out(self, until: int) -> None:
        """Omit the text up to position `until`, except for output that exists already."""
        self._written = until - self.start
        self.changed = self.item.changed = True

    def cut(self) -> str:
        """End the text where it is undecided; return the rest."""
        at = self.channel.decided - self.start
        rest, self.text = self.text[at:], self.text[:at]
        self.end = self.channel.decided
        self.item.open -= 1
        self.changed = self.item.changed = True
        return rest

    def leaves(self) -> str:
        """Return the text as it is sent."""
        return "".join([*self._out, self.text[self._written :]])


class Channel(Generic[Raw]):
    """One channel: its scanner, and its undecided texts."""

    __slots__ = ("_open", "decided", "fed", "findings", "last", "name", "rest", "scan", "scanner")

    def __init__(self, name: str, scanner: ChannelScanner) -> None:
        self.name = name
        self.scanner = scanner
        self.scan: Callable[[str], int | Sequence[Piece]] = scanner.take
        """Scans the next text; while there is a rest, as pieces: it has been sent in part."""
        self.findings = scanner.findings
        """Those that are not recorded yet."""
        self.fed = 0
        """Position of its end. Text that was decided at once need not count: only differences matter."""
        self.decided = 0
        self.rest = ""
        """Undecided text whose event has been sent; it precedes the next text of the channel."""
        self.last: tuple[Item[Raw], Path]
        """The event that `rest` came in, and its path there."""
        self._open: deque[Waiting[Raw]] = deque()

    def take(self, text: str) -> int | Sequence[Piece]:
        """Scan the next text; return what is decided: pieces, or how many characters may be sent unchanged."""
        self.fed += len(text)
        return self.scan(text)

    def wait_for(self, path: Path, text: str, item: Item[Raw]) -> None:
        """Register the text that was just scanned, after any rest from before."""
        if self.rest:
            self._adopt(item, path, self.rest + text)
        else:
            self._open.append(Waiting(self, item, path, text, self.fed))

    def adopt(self, item: Item[Raw]) -> None:
        """Move the rest to an event of its own."""
        self._adopt(item, self.last[1], self.rest)

    def let_pass(self, count: int) -> int:
        """Release characters unchanged; return how many waiting events are decided now."""
        self.decided += count
        ready = 0
        while self._open and self._open[0].end <= self.decided:
            item = _decided(self._open.popleft())
            item.open -= 1
            ready += item.is_queued and not item.open
        return ready

    def place(self, piece: Piece) -> int:
        """Distribute a decided piece to the events that it represents; return how many waiting events are decided now.

        A mask is placed where the finding begins; the rest of the hidden text is omitted.
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
                item = _decided(waiting)
                item.open -= 1
                ready += item.is_queued and not item.open
        return ready

    def pass_rest_on(self, waiting: Waiting[Raw]) -> None:
        """Take the undecided rest from the first waiting event; it continues with the next one."""
        rest = waiting.cut()
        del self._open[0]
        if self._open:
            following = self._open[0]
            following.text = rest + following.text
            following.start -= len(rest)
            following.changed = following.item.changed = True
        else:
            self.rest = rest
            self.scan = self.scanner.pieces
            self.last = waiting.item, waiting.path
        _decided(waiting)

    def _adopt(self, item: Item[Raw], path: Path, text: str) -> None:
        waiting = Waiting(self, item, path, text, self.fed)
        waiting.changed = item.changed = True
        self.rest = ""
        self.scan = self.scanner.take
        self._open.append(waiting)


def _decided(waiting: Waiting[Raw]) -> Item[Raw]:
    """Return the event of a text that no longer waits, and let go of it: the event knows its texts."""
    item = waiting.item
    del waiting.item
    return item
