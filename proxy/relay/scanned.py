"""Text on its way through a scanner: which events may be sent, and how events with a finding are rewritten.

An event is held whole until all its text is decided, and everything behind it waits, so a stream without findings
passes byte for byte. A scanner leaves only a few characters undecided at a time; an event usually waits for the next
one of its channel, rarely longer.

    events   ....|e3|e2|e1|   e1: text decided, nothing masked    -> sent unchanged
                  |  |        e2: part of a finding               -> sent with the mask, or without what it hides
                  |  `------- e3: undecided                       -> waits, and so does everything behind it

A channel that does not continue must not hold up the others: once something that could be sent has waited for `hold_s`,
or more than `hold_bytes` wait, the event in front is sent with the decided part of its text. The rest is sent with the
next event of its channel or, if there is none, in an event of its own before the channel's end.

Blocked: text before the finding is sent, nothing behind it. Cut by the provider: undecided text is never sent, because
it may be the beginning of a secret.

Rule of the file: no I/O, no parsing. Failure mode: if an answer needs more channels than `max_channels`, the further
ones are scanned event by event, and that is recorded.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from proxy.errors import ProxyError
from proxy.exchange import Dialect
from proxy.nouns.findings import let_go
from proxy.nouns.scanners import ChannelScanner, OutputScanner, Piece
from proxy.openai.channel_keys import ALL, Key, Path
from proxy.openai.channels import (
    CALLED,
    Text,
    Whole,
    place_of,
    read_event,
    read_plain,
    read_usual,
    usual_path,
)
from proxy.openai.documents import dump_exact, load_object
from proxy.openai.masked_text import alone, with_names, with_texts
from proxy.openai.token_texts import LOGPROBS
from proxy.relay.answer import forbidden, not_scannable
from proxy.relay.undecided import UNREAD, Channel, Item

_PART: Final = 1 << 16
_CLEAN_CHARACTERS: Final = 64
_MOST_CLEAN: Final = 256
_MOST_ENDED: Final = 256
_COMMENT: Final[Path] = ("comment",)
_NAME: Final[Path] = ("name",)

Raw = TypeVar("Raw")
"""An event as received: bytes of a stream, or a message."""


class ScannedStream(Generic[Raw]):
    """One stream of events. `write`: replaces the data of an event, with its framing intact."""

    def __init__(
        self,
        dialect: Dialect,
        scanner: OutputScanner,
        write: Callable[[Raw, bytes], Raw],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.error: ProxyError | None = None
        """Why the answer must end here; nothing is accepted afterwards."""
        self._dialect = dialect
        self._scanner = scanner
        self._edits = scanner.edits
        self._saw = scanner.saw
        self._hold_s = scanner.hold_s
        self._hold_bytes = scanner.hold_bytes
        self._max_channels = scanner.max_channels
        self._write = write
        self._clock = clock
        self._channels: dict[Key, Channel[Raw]] = {}
        self._queue: deque[Item[Raw]] = deque()
        self._held_bytes = 0
        self._ready = 0
        """Number of waiting events whose text is decided."""
        self._large = 0
        """Number of waiting events that are large."""
        self._ended: dict[Key, ChannelScanner] = {}
        """Scanners of channels that have ended, the latest; some providers go on all the same."""
        self._trusts_ends = True
        self._missed: set[str] = set()
        self._clean: set[str] = set()
        self._passed = 0
        """Characters scanned by `passes` that are not recorded yet."""
        self._told: int | Sequence[Piece] = 0
        """The scanner's answer to the latest piece."""
        self._noted: set[tuple[str, int, int]] = set()

    @property
    def holds_large(self) -> bool:
        """True while a large event waits: rewriting it takes long, whichever event lets it go."""
        return self._large > 0

    def take(self, raw: Raw, data: bytes, name: bytes | None, document: Any) -> list[Raw]:
        """Take one event and return what may be sent now. `document`: decoded `data`; `None` if it is not JSON.

        Cost for an ordinary event: see bench/policy_relay.py.
        """
        usual = read_usual(document)
        if usual is not None and usual[0] in self._channels:
            key, said = usual
            if self.passes(key, said):
                self.note()
                return [raw]
            return self.take_usual(raw, data, key, usual_path(key), said)
        texts = read_plain(self._dialect, data) if document is None else read_event(self._dialect, name, document)
        item = Item(raw, data, document, len(data))
        self._saw(sum([len(text.text) for text in texts.pieces]) + sum([len(whole.text) for whole in texts.wholes]))
        for text in texts.pieces:
            self._feed(text, item)
        for whole in texts.wholes:
            self._take_whole(whole, item)
        if texts.names:
            self._take_names(texts.names, item)
        for path in texts.missed:
            self.miss(place_of(path), "media")
            item.is_withheld = self.error is not None
        left = self.abandon() if texts.failed else []
        for key in texts.ends:
            self._end(key)
        if self.error is not None:
            return left + self._cut(item)
        if not self._queue and not item.open:
            return [*left, self._finished(item)]
        return left + self._queued(item)

    def passes(self, key: Key, said: str) -> bool:
        """Scan an event that is one piece of a channel; True: it may be sent as it is, by far the most common case.

        After False, `take_usual` must be called with the same piece; after True, `note` some time.
        """
        channel = self._channels.get(key)
        if channel is None:
            return False
        told = channel.scan(said)
        if told == (size := len(said)) and not self._queue and not channel.findings:
            self._passed += size
            return True
        self._saw(size)
        channel.fed += size
        self._told = told
        return False

    def take_usual(self, raw: Raw, data: bytes, key: Key, path: Path, said: str) -> list[Raw]:
        """Do the same as `take` for an event that is one piece of a channel, `said` at `path`, after `passes`."""
        channel = self._channels.get(key)
        if channel is None:
            return self.take(raw, data, None, load_object(data))
        told = self._told
        if type(told) is not int or channel.findings:
            self._note(channel)
        if self._is_decided(channel, told):
            left = self._release() if self._queue else []
            return left + self._queued(Item(raw, data, UNREAD, len(data))) if self._queue else [*left, raw]
        item = Item(raw, data, UNREAD, len(data))
        channel.wait_for(path, said, item)
        if not isinstance(told, int):
            self._place(channel, told)
        return self._cut(item) if self.error is not None else self._queued(item)

    def aside(self, text: str) -> str:
        """Scan a text beside the data of an event; return what may be sent of it, or set `error`."""
        self._saw(len(text))
        passed = self._looked_at(Whole(_COMMENT, text, "text"))
        return text if passed is None else passed

    def pass_by(self, raw: Raw, size: int) -> list[Raw]:
        """Take something without text to scan, in order with the rest. `size`: in bytes."""
        return self._queued(Item(raw, b"", None, size)) if self._queue else [raw]

    def note(self) -> None:
        """Record how much was scanned: before the record is made of the answer."""
        self._saw(self._passed)
        self._passed = 0

    def end(self) -> list[Raw]:
        """Return what was held, at the end of the stream."""
        self._end(ALL)
        return self.abandon() if self.error is not None else self._release()

    def abandon(self) -> list[Raw]:
        """Return the decided part of what was held and drop the rest, when the stream was cut."""
        return self._left_of(len(self._queue))

    def miss(self, place: str, reason: str) -> None:
        """Record that something cannot be scanned; sets `error` if the policy requires a scan."""
        if place not in self._missed and len(self._missed) < self._max_channels:
            self._missed.add(place)
            self._scanner.missed(place, reason)
        if self._scanner.unscannable == "deny" and self.error is None:
            self.error = not_scannable()

    def _feed(self, text: Text, item: Item[Raw]) -> None:
        """Scan a piece in its channel; `item` waits unless the piece is decided at once, as it nearly always is."""
        channel = self._channels.get(text.key) or self._opened(text)
        if channel is None:
            self._take_whole(Whole(text.path, text.text, text.kind), item)
            return
        if len(text.text) > _PART:
            self._feed_in_parts(channel, text, item)
            return
        told = channel.take(text.text)
        if not self._is_decided(channel, told):
            channel.wait_for(text.path, text.text, item)
            if not isinstance(told, int):
                self._place(channel, told)
        self._note(channel)

    def _feed_in_parts(self, channel: Channel[Raw], text: Text, item: Item[Raw]) -> None:
        """Scan a large piece bit by bit, with the same result: what is found is not freed all at once."""
        whole, size = text.text, len(text.text)
        channel.fed += size
        if self._edits:
            channel.wait_for(text.path, whole, item)
        for at in range(0, size, _PART):
            decided = channel.scanner.pieces(whole[at : at + _PART])
            if self._edits:
                self._place(channel, decided)
            self._note(channel)

    def _is_decided(self, channel: Channel[Raw], told: int | Sequence[Piece]) -> bool:
        """Release unchanged text; tell whether that is everything received in the channel so far."""
        if not self._edits:
            return True
        if not isinstance(told, int):
            return False
        self._ready += channel.let_pass(told)
        return channel.decided == channel.fed

    def _opened(self, text: Text) -> Channel[Raw] | None:
        key = text.key
        if len(self._channels) >= self._max_channels:
            self.miss("channels", "too_large")
            return None
        if (ended := self._ended.pop(key, None)) is not None:
            # Otherwise this provider marks every piece as the last.
            self._trusts_ends = self._trusts_ends and key[-1] == CALLED
        scanner = self._scanner.channel(text.kind) if ended is None else ended.resumed()
        channel: Channel[Raw] = Channel(place_of(key), scanner)
        self._channels[key] = channel
        return channel

    def _place(self, channel: Channel[Raw], pieces: Iterable[Piece]) -> None:
        """Distribute decided pieces to the events that they came in."""
        for piece in pieces:
            self._ready += channel.place(piece)

    def _note(self, channel: Channel[Raw]) -> None:
        """Record a channel's new findings; end the answer if one blocks it."""
        if found := channel.findings:
            if len(self._noted) < self._max_channels:
                self._noted.update((finding.rule_id, finding.start, finding.end) for finding in found)
            self._scanner.found(channel.name, found)
            found.clear()
        if (blocked := channel.scanner.blocked) is not None and self.error is None:
            self.error = forbidden(channel.name, blocked)

    def _take_names(self, names: list[str], item: Item[Raw]) -> None:
        """Scan names of members."""
        self._saw(sum(map(len, names)))
        passed = {name: self._looked_at(Whole(_NAME, name, "text")) for name in names}
        item.is_withheld = item.is_withheld or None in passed.values()
        item.names = {name: other for name, other in passed.items() if other is not None and other != name} or None

    def _take_whole(self, whole: Whole, item: Item[Raw]) -> None:
        """Scan a complete text of an event."""
        passed = self._looked_at(whole)
        if passed is None:
            item.is_withheld = True
        elif passed is not whole.text:
            item.edits = {**(item.edits or {}), whole.path: passed}

    def _looked_at(self, whole: Whole) -> str | None:
        """Return what may be sent of a complete text; `None` if it is blocked: neither it nor what follows may leave.

        A copy of a channel's text is scanned again, but its findings are recorded once.
        """
        text = whole.text
        if text in self._clean:
            return text
        result = self._scanner.whole(text, whole.kind)
        if not result.findings and result.blocked is None:
            if len(text) <= _CLEAN_CHARACTERS and len(self._clean) < _MOST_CLEAN:
                self._clean.add(text)
            return text
        new = [found for found in result.findings if (found.rule_id, found.start, found.end) not in self._noted]
        if new:
            self._scanner.found(place_of(whole.path), new)
        let_go(result.findings)
        let_go(new)
        if result.blocked is None:
            return result.text if self._edits else text
        self.error = self.error or forbidden(place_of(whole.path), result.blocked)
        return None

    def _end(self, prefix: Key) -> None:
        """Decide what is open in all channels whose key starts with `prefix`."""
        if not self._trusts_ends and prefix and prefix[-1] != CALLED:
            return
        size = len(prefix)
        for key in [key for key in self._channels if key[:size] == prefix]:
            channel = self._channels.pop(key)
            if len(self._ended) >= _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._ended[key] = channel.scanner
            if channel.rest and key[-1] != LOGPROBS:
                item = self._of_its_own(channel)
                channel.adopt(item)
                self._append(item)
            self._place(channel, channel.scanner.pieces("", final=True))
            self._note(channel)

    def _of_its_own(self, channel: Channel[Raw]) -> Item[Raw]:
        """Return a new event that contains only the rest of a channel that ends."""
        model, path = channel.last
        if not model.is_json:
            return Item(model.raw, model.data, None, model.size)
        document, path = model.read(partial(alone, path=path, text=channel.rest))
        data = dump_exact(document)
        item = Item(self._write(model.raw, data), data, document, len(data))
        channel.last = item, path
        return item

    def _append(self, item: Item[Raw]) -> None:
        item.is_queued, item.since = True, self._clock()
        self._held_bytes += item.size
        self._large += item.size > _PART
        self._ready += not item.open
        self._queue.append(item)

    def _queued(self, item: Item[Raw]) -> list[Raw]:
        self._append(item)
        return self._release()

    def _release(self) -> list[Raw]:
        """Return what may be sent, in order."""
        queue = self._queue
        out: list[Raw] = []
        while queue and (self._ready or self._held_bytes > self._hold_bytes):
            first = queue[0]
            if first.open:
                is_late = bool(self._ready) and self._clock() - first.since > self._hold_s
                if not is_late and self._held_bytes - first.size <= self._hold_bytes:
                    break
                self._scanner.hurried("time" if is_late else "size")
                for waiting in first.still_open():
                    waiting.channel.pass_rest_on(waiting)
                self._ready += 1
            first = self._unqueued()
            out.append(self._finished(first) if first.changed or first.edits or first.names else first.raw)
        return out

    def _unqueued(self) -> Item[Raw]:
        item = self._queue.popleft()
        self._held_bytes -= item.size
        self._large -= item.size > _PART
        self._ready -= not item.open
        return item

    def _cut(self, last: Item[Raw]) -> list[Raw]:
        """Return what precedes the place where the answer is blocked."""
        self._append(last)
        place = next((at for at, item in enumerate(self._queue) if item.holds_blocked), len(self._queue) - 1)
        return self._left_of(place + 1)

    def _left_of(self, count: int) -> list[Raw]:
        """Return the decided part of the first waiting events; drop all of them."""
        out = []
        for _ in range(count):
            item = self._unqueued()
            if item.is_withheld or (item.open and not item.says_something):
                continue
            for waiting in item.still_open():
                waiting.cut()
            out.append(self._finished(item))
        self._queue.clear()
        self._channels.clear()
        self._held_bytes = self._ready = self._large = 0
        return out

    def _finished(self, item: Item[Raw]) -> Raw:
        """Return an event as it is sent."""
        changed, data = item.changes(), item.data
        if not changed and not item.names:
            return item.raw
        if not item.is_json:
            return self._write(item.raw, changed[()].encode("utf-8", "surrogateescape"))
        if changed:
            data = item.read(lambda document: with_texts(item.data, document, changed))
        return self._write(item.raw, with_names(data, item.names) if item.names else data)
