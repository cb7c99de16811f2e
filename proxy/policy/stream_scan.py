"""Finds and masks what the rules describe in a stream of text, independently of how the stream is split.

    StreamPlan(detector, action)    once per policy: rules grouped, closures compiled
      .scanner() -> StreamScanner   once per channel of an answer: choice x content, reasoning, tool arguments, ...
        .feed(delta)                the text that may be sent now; `pieces` and `take` return it in other forms
        .flush()                    the rest; call it before the channel's end is sent

    .......................|~~~~~~~~~~~~~~~~|
          sent             ^ hold-back      ^ received

Invariant: the concatenated output is `mask.redact` of the whole text with those of `Detector.find`'s findings whose
action is `redact`, for every way of splitting. Only what could still become part of a match is held back, and of that,
the first characters that every mask keeps are sent at once, so a prefix such as `ghp_` does not wait. Text without a
match is unchanged. If the stream ends early, nothing was sent that the invariant does not allow.

A token that exceeds its rule's limit is masked once and dropped while it lasts, so memory is bounded. Findings that are
only flagged hold nothing back. A finding to be blocked ends the channel: everything before it is sent, masked where
needed, but nothing of it and nothing after it.

Rule of the file: internal positions are bytes of the whole stream; results are in characters.
Cost: a few microseconds per delta; see `bench/policy_stream.py`.
"""

from bisect import insort
from typing import Final, NamedTuple

from proxy.nouns.findings import Finding
from proxy.policy import boundaries, mask
from proxy.policy.base64_runs import SHORTEST, ends_in_run
from proxy.policy.detect import Detector, encode
from proxy.policy.found import place
from proxy.policy.stream_team import SURE, Decide, Team, head_end, teams
from proxy.policy.stream_track import Run, Track, prepare
from proxy.policy.stream_window import Window, joined

_LEFT: Final = 2 * boundaries.REACH
_SHIFT: Final = 256
_GLANCES: Final = 160
"""The most bytes for a glance, which reads all of them every time."""
_PATIENCE: Final = 352
"""After how many more bytes a closer look is due within a run of base64 (bench/policy_stream.py).
There a glance is useless, as nearly all of it could be a key, and most expensive, as random letters make RE2 build new
states. Until then nothing is sent; several pieces are handled as a longer one."""
_HASTE: Final = 64
"""The same while something is found and not sent yet."""
_WARMING: Final = ("so many tenants", " 12 ", " password = a1b2", " and so on" * 60)
"""Texts that exercise every usual search: words, numbers, a context, a case for a closer look."""
_BATCH: Final = 512
"""After how many bytes the rules that hold nothing back are run."""
_CONTEXT: Final = 1024
"""How many characters of an ended channel are context of what continues it."""
_ENDLESS: Final = 1 << 62
"""The end of a finding whose run continues."""


class Piece(NamedTuple):
    """A part of the output: original text, or the replacement of hidden text."""

    text: str
    taken: int
    """How many characters of the stream it represents."""
    masked: bool = False


class StreamPlan:
    """Rules and their actions, prepared for streams. Immutable, so any thread may use it."""

    def __init__(self, detector: Detector, action: Decide, *, glances: bool = True) -> None:
        """`glances`: False for streams of large pieces, which all need a closer look."""
        self.action = action
        self.held, self.noted = teams(detector, action, glances=glances)
        """The rules whose findings may have to be hidden or blocked, and those whose findings are only recorded."""

    def scanner(self) -> "StreamScanner":
        """Return a scanner for one channel."""
        return StreamScanner(self)

    def warm_up(self) -> None:
        """Compile, and let RE2 build its states, now; otherwise the first events would wait for that."""
        for team in (self.held, self.noted):
            team.compile()
        scanner = StreamScanner(self, for_loop=True)
        for text in (*_WARMING, ""):
            scanner.pieces(text, final=not text)

    def may_match(self, text: str) -> bool:
        """Tell whether some rule may find something in a complete text."""
        data = encode(text)
        return bool(self.held.hits(data) or self.noted.hits(data))


class StreamScanner:
    """One channel of one answer."""

    def __init__(self, plan: StreamPlan, position: int = 0, context: str = "", for_loop: bool = False) -> None:
        """Begin a channel. `position`: offset in its text; `context`: precedes it and is never sent.

        `for_loop`: a thread warms up what the event loop will use, and needs nothing of its own.
        """
        self._for_loop = for_loop
        self.findings: list[Finding] = []
        """Completed findings; who records them takes them out. Offsets in characters of the channel's text."""
        self.blocked: Finding | None = None
        """The finding that ended the channel, if any."""
        self._plan = plan
        self._open_from = plan.held.open_from
        self._held = [Track(watch) for watch in plan.held.watches]
        self._noted = [Track(watch) for watch in plan.noted.watches]
        self._window = Window(position, context)
        self._first = self._out = self._cover = self._reached = self._window.end
        """First: start of the channel's own text. Out: end of what was sent. Cover: end of the last mask so far."""
        self._noted_at = self._settled = 0
        """Settled: in the window; matches that begin before are decided, as of the last closer look."""
        self._look_at = self._window.end + _GLANCES  # up to there, a glance may suffice
        self._wait_until = self._look_at + _PATIENCE  # up to there, a run of base64 is not looked at
        self._easy_until = 0
        """Below this position one is due: a blank is near enough to the end, and nothing is masked or blocked."""
        self._begun: dict[int, int] = {}
        """Unfinished findings: the character position of each byte position where one begins."""
        self._masked: tuple[Track, Run] | None = None
        """The run that the last mask stands for, if nothing else is to be hidden; what continues it needs no look."""
        self._masked_until = 0
        """Up to this position."""
        self._hidden: list[tuple[int, int]] = []
        self._blocks: list[Finding] = []
        self._ending = ""
        """The last text of an ended channel, from where something could have become a match."""
        self._untold: list[tuple[int, Finding]] = []
        """Findings held until nothing that ends the channel can begin before them; by position."""

    @property
    def held(self) -> int:
        """Number of characters held back."""
        return self._window.position(self._window.end) - self._window.position(self._out)

    def feed(self, delta: str) -> str:
        """Take the next piece of the text and return what may be sent. Cost O(len(delta)), amortised."""
        return "".join(piece.text for piece in self.pieces(delta))

    def flush(self) -> str:
        """Return what was held back, at the end of the text; nothing may be fed afterwards."""
        return "".join(piece.text for piece in self.pieces("", final=True))

    def pieces(self, delta: str, final: bool = False, written: list[tuple[int, str]] | None = None) -> list[Piece]:
        """Do the same as `feed`, or `flush` if `final`, and distinguish text from masks.

        `written`: characters whose original form is longer (`Window.append`); pieces have the original form.
        """
        if self.blocked is not None:
            return []
        self._window.append(delta, written)
        if final:
            self._ending = self._window.meant(self._window.base, self._window.end)[-_CONTEXT:]
        if self._masked is not None and not final and self._goes_on(*self._masked):
            return self._swallowed()
        stop = None if final else self._glance()
        return self._look_closely(final) if stop is None else self._let_out([], stop)

    def resumed(self) -> "StreamScanner":
        """Return a scanner for text that continues the ended channel; only what it adds can be masked."""
        return StreamScanner(self._plan, self._window.position(self._window.end), self._ending)

    def take(self, delta: str) -> int | list[Piece]:
        """Do the same as `pieces`, but return just a character count if that much text may be sent unchanged."""
        window, out = self._window, self._out
        is_bare = out == window.end
        data = delta.encode("utf-8", "replace")
        end = window.end + len(data)
        if end < self._easy_until:  # nearly always: inlined `Window.append` and `_glance`
            window.text += delta
            window.data = data = window.data + data
            window.end, base = end, window.base
            stop = self._open_from(data, self._settled, self._cover - base)
            stop = None if stop is None else base + stop
        elif self.blocked is not None:
            return 0
        else:
            window.append(delta)
            if self._masked is not None and self._goes_on(*self._masked):
                return self._swallowed()
            stop = self._glance()
        if stop is None:
            pieces = self._look_closely(False)
            return pieces[0].taken if len(pieces) == 1 and not pieces[0].masked else pieces
        if stop <= out:
            return 0
        self._out = stop
        return len(delta) if is_bare and stop == end else window.characters(out, stop)

    def _glance(self) -> int | None:
        """Return up to where text may be sent, `None` if that needs a closer look, which would agree."""
        window = self._window
        data, end = window.data, window.end
        # `rfind`, as `in` looks for a number first, and drops an exception: six times as many instructions.
        blank = data.rfind(b" ", -SHORTEST)
        if blank >= 0 or not ends_in_run(data):
            if end >= self._look_at:
                return None
            self._easy_until = 0 if blank < 0 else min(self._look_at, window.base + blank + SHORTEST + 1)
            stop = self._open_from(data, self._settled, self._cover - window.base)
            return None if stop is None else window.base + stop
        return self._out if end < self._wait_until else None

    def _goes_on(self, track: Track, run: Run) -> bool:
        """Tell whether all of the text continues a masked run: it is hidden, whatever else is found in it.

        So the rules can read many small pieces at once.
        """
        data = self._window.data
        if self._window.end >= self._masked_until:
            return False
        end, at, reached = track.watch.matchers[run.index].follow(data, run.at, final=False)
        goes_on = end is None and reached == len(data)
        run.at = at if goes_on else run.at
        return goes_on

    def _swallowed(self) -> list[Piece]:
        """Drop all text as part of the last mask."""
        self._cover = self._window.end
        return self._swallow([])

    def _look_closely(self, final: bool) -> list[Piece]:
        """Run all rules, and return what is decided."""
        window = self._window
        self._advance(self._held, self._plan.held, final)
        if final or window.end - self._noted_at >= _BATCH:
            self._advance(self._noted, self._plan.noted, final)
            self._noted_at = window.end
        pieces = self._release(final)
        self._shift()
        self._settle()
        return pieces

    def _settle(self) -> None:
        """Set where the next glance begins, and when a closer look is due: at once after a finding."""
        tracks = self._held
        runs = [(track, run) for track in tracks for run in track.runs]
        is_quiet = self._cover <= self._out and not (self._hidden or self._blocks or runs)
        is_masked = bool(runs) and self._cover == self._out == self._window.end and not (self._hidden or self._blocks)
        if is_masked and all(self._plan.action(run.finding) == "redact" for _, run in runs):
            self._masked, self._masked_until = runs[0], self._window.end + _PATIENCE
        else:
            self._masked = None
        self._look_at = self._window.end + _GLANCES if is_quiet else 0
        patience = 0 if any(track.waits for track in tracks) else _GLANCES + _PATIENCE if is_quiet else _HASTE
        self._wait_until = self._window.end + patience
        self._easy_until = 0
        self._settled = min([track.settled for track in tracks], default=0)

    def _advance(self, tracks: list[Track], team: Team, final: bool) -> None:
        """Run rules on the window and record what they found."""
        if not tracks:
            return
        data, base = self._window.data, self._window.base
        first = min([track.settled for track in tracks])
        hits, in_run = team.hits(data[max(0, first - boundaries.REACH) :], self._for_loop), ends_in_run(data)
        for number, track in enumerate(tracks):
            for finding in track.advance(data, hits.get(number, ()), final, in_run):
                self._note(finding._replace(start=base + finding.start, end=base + finding.end))
            for run in track.runs:
                start = max(base + run.finding.start, self._first)
                if start not in self._begun:
                    self._begun[start] = self._window.position(start)
        prepare(tracks)

    def _note(self, finding: Finding) -> None:
        """Record a completed finding. One in the context does not belong to this channel."""
        action = self._plan.action(finding)
        if action == "allow" or finding.end <= self._first:
            return
        if finding.start < self._first:
            finding = finding._replace(start=self._first)
        self._untold.append((finding.start, self._told(finding)))
        if action == "redact":
            insort(self._hidden, (finding.start, finding.end))
        elif action == "block":
            insort(self._blocks, finding, key=place)

    def _release(self, final: bool) -> list[Piece]:
        """Return what may be sent: every part for which all overlapping findings are known."""
        sure = self._window.end
        if not final and self._held:
            sure = self._window.base + min([track.undecided for track in self._held])
        spans, block = self._spans()
        pieces: list[Piece] = []
        stop = sure if final else self._stop(spans)
        if spans or block:
            stop = self._mask(pieces, spans, block, stop, sure)
        self._let_out(pieces, stop)
        if block is not None and block.start <= min(self._out, sure):
            self._block(block)
        elif self._untold:
            self.findings += [told for start, told in self._untold if start < sure]
            self._untold = [(start, told) for start, told in self._untold if start >= sure]
        return pieces

    def _mask(
        self, pieces: list[Piece], spans: list[tuple[int, int]], block: Finding | None, stop: int, sure: int
    ) -> int:
        """Release and mask up to the last mask that is final; return up to where the following text may be sent."""
        if block is not None and block.start <= stop:
            stop = block.start
        for start, end in spans:
            if start < self._cover:
                self._cover = max(self._cover, min(end, self._reached))
        self._swallow(pieces)
        for start, end in joined(spans, self._cover):
            self._let_out(pieces, min(start, stop))
            if self._out < start or not self._is_told(start, end, sure) or (block and block.start <= start):
                return self._out
            self._hide(pieces, start, end, block)
        self._hidden = [(start, end) for start, end in self._hidden if end > self._out]
        return stop

    def _spans(self) -> tuple[list[tuple[int, int]], Finding | None]:
        """Return the spans to be hidden, in order, and the first that blocks; set up to where unfinished ones go."""
        spans, blocks, reached = self._hidden, self._blocks, list[int]()
        for track in self._held if self._begun else ():
            for run in track.runs:
                action = self._plan.action(run.finding)
                start = max(self._window.base + run.finding.start, self._first)
                if action == "redact":
                    spans = sorted([*spans, (start, _ENDLESS)])
                    reached.append(self._window.base + run.reached)
                elif action == "block":
                    blocks = sorted([*blocks, run.finding._replace(start=start, end=self._window.end)], key=place)
        self._reached = max(reached, default=self._window.end)
        return spans, blocks[0] if blocks else None

    def _stop(self, spans: list[tuple[int, int]]) -> int:
        """Return up to where nothing can become part of a finding, except for what every mask keeps."""
        covered = max([self._cover, *[end for _, end in spans]]) - self._window.base
        data = self._window.data
        stop = len(data)
        for track in self._held:
            undecided = track.undecided
            if undecided < stop:
                if track.watch.kept and undecided >= covered:
                    undecided = head_end(data, undecided)
                stop = min(stop, undecided)
        return min(self._window.base + stop, self._reached)

    def _is_told(self, start: int, end: int, sure: int) -> bool:
        """Tell whether the mask for `start` to `end` (at least) is final."""
        if sure >= end:
            return True
        return sure >= start + mask.KEPT and len(self._window.meant(start, min(end, self._window.end))) >= SURE

    def _hide(self, pieces: list[Piece], start: int, end: int, block: Finding | None) -> None:
        """Emit a mask for a part of which the first characters may have been sent."""
        window = self._window
        end = min(end, self._reached)
        head = window.meant(start, min(start + mask.KEPT, end if block is None else min(end, block.start)))
        kept = len(mask.kept(head, len(window.meant(start, end))))
        left = len(window.shown(start, self._out))
        masked = (window.shown(start, start + kept) + mask.STARS)[left:]
        pieces.append(Piece(masked, window.position(end) - window.position(self._out), True))
        self._cover = self._out = end

    def _swallow(self, pieces: list[Piece]) -> list[Piece]:
        """Drop what belongs to the last mask; return `pieces`."""
        if self._cover > self._out:
            taken = self._window.position(self._cover) - self._window.position(self._out)
            pieces.append(Piece("", taken, True))
            self._out = self._cover
        return pieces

    def _let_out(self, pieces: list[Piece], until: int) -> list[Piece]:
        """Emit the text up to `until` unchanged; return `pieces`."""
        if until > self._out:
            text = self._window.shown(self._out, until)
            pieces.append(Piece(text, len(text)))
            self._out = until
        return pieces

    def _block(self, finding: Finding) -> None:
        """End the channel. Record what was found before by the rules that hold nothing back."""
        self._advance(self._noted, self._plan.noted, final=True)
        self.blocked = self._told(finding)
        before = [told for start, told in self._untold if start <= finding.start]
        self.findings += before if self.blocked in before else [*before, self.blocked]

    def _told(self, finding: Finding) -> Finding:
        """Return `finding` with its offsets in characters of the channel."""
        start, end = finding.start, self._window.position(finding.end)
        if start < self._window.base:
            return finding._replace(start=self._begun[start], end=end)
        return finding._replace(start=self._window.position(start), end=end)

    def _shift(self) -> None:
        """Drop what is no longer needed from the window."""
        if len(self._window.data) < _SHIFT:
            return
        needed = min([track.needs_from() for track in (*self._held, *self._noted)], default=len(self._window.data))
        needed = min(needed, self._out - self._window.base) - _LEFT
        if needed >= _SHIFT:
            size = self._window.cut(needed)
            for track in (*self._held, *self._noted):
                track.shift(size)
