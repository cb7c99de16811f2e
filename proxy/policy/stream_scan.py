"""Find and mask in a stream of text what the rules describe, whichever way the stream is cut.

    StreamPlan(detector, action)    once per policy: rules grouped, closures compiled
      .scanner() -> StreamScanner   once per channel of an answer: choice x content, reasoning, tool arguments, ...
        .feed(delta)                the text that may leave now; `pieces` and `take` tell it otherwise
        .flush()                    the rest; call it before the channel's end is told

    .......................|~~~~~~~~~~~~~~~~|
          has left         ^ hold-back      ^ what has come

Law: what leaves, put together, is `mask.redact` of the whole text with those of `Detector.find`'s findings whose action
is `redact`, for every way of cutting. Held back is only what could still become part of a match; of that, the first
characters that every mask keeps leave at once, so a prefix such as `ghp_` waits for nothing. Text without a match
leaves as it came. Whenever the stream ends early, nothing has left that the law would not have let out.

A token that goes on beyond its rule's limit is masked once and swallowed while it lasts, so memory is bounded. What is
only flagged waits for nothing. A finding to be blocked ends the channel: all that comes before it has left, masked
where need be, nothing of it has, and nothing follows.

Rule of the file: places are bytes of the whole stream; what is told is in characters.

Cost: a few microseconds per delta; see `bench/policy_stream.py`.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from proxy.findings import Action, Finding, Severity
from proxy.policy import base64_runs, boundaries, mask, openings
from proxy.policy.detect import Detector, Matcher, encode, place
from proxy.policy.rules import Rule
from proxy.policy.stream_team import Team, head_end
from proxy.policy.stream_track import Track
from proxy.policy.stream_window import Window

Decide = Callable[[Finding], Action]
"""Says what is done about a finding. Only its rule, category and severity may decide."""

_LEFT: Final = 2 * boundaries.REACH
_SHIFT: Final = 256
_GLANCES: Final = 160
"""How many bytes a glance is enough for, where it is: it reads them all each time."""
_PATIENCE: Final = 352
"""How many bytes later a closer look is due while a run of base64 goes on (bench/policy_stream.py).

There a glance tells nothing: nearly all of it could be a key. And it costs most, as random letters bring RE2 into
states that it has never been in. Until then nothing leaves; several pieces are one longer piece."""
_WARMING: Final = ("so many tenants", " 12 ", " password = a1b2", " and so on" * 60, " A1b" + "C2d" * 180)
"""Texts for which every question is asked: words, numbers, a context, what only a closer look decides, a long token."""
_BATCH: Final = 512
"""After how many bytes the rules are asked that hide nothing."""
_SURE: Final = 4 * mask.KEPT
"""From this length on a mask keeps all it ever keeps."""
_ENDLESS: Final = 1 << 62
"""The end of a finding whose run goes on."""


class Piece(NamedTuple):
    """A part of the output: text as it came, or what stands for text that is hidden."""

    text: str
    taken: int
    """How many characters of the stream it stands for."""
    masked: bool = False


class StreamPlan:
    """Rules and what is done about them, made ready for streams. Immutable, so any thread may use it."""

    def __init__(self, detector: Detector, action: Decide) -> None:
        self.action = action
        held: dict[tuple[bool, int], list[Matcher]] = {}
        noted: list[Matcher] = []
        for matcher in detector.matchers:
            actions = _actions(matcher.rule, action)
            if actions & {"redact", "block"}:
                held.setdefault(_holding(matcher.rule, "block" in actions), []).append(matcher)
            elif actions != {"allow"}:
                noted.append(matcher)
        self.held = Team((group, leads, kept) for (leads, kept), group in held.items())
        """Rules of which something may have to be hidden or blocked."""
        self.noted = Team([(noted, False, 0)] if noted else [])
        """Rules whose findings are only told."""

    def scanner(self) -> "StreamScanner":
        """Return a scanner for one channel."""
        return StreamScanner(self)

    def warm_up(self) -> None:
        """Let RE2 build now what it builds when it is first asked: the first events would wait for it."""
        scanner = self.scanner()
        for text in _WARMING:
            scanner.pieces(text)
        scanner.pieces("", final=True)

    def may_match(self, text: str) -> bool:
        """Tell whether some rule may find something in a whole text."""
        data = encode(text)
        return bool(self.held.hits(data) or self.noted.hits(data))


class StreamScanner:
    """One channel of one answer."""

    def __init__(self, plan: StreamPlan, position: int = 0, context: str = "") -> None:
        """Begin a channel. `position`: where in its text; `context`: what leads to it, which is never let out."""
        self.findings: list[Finding] = []
        """What was found and has ended; only ever grows. Offsets in characters of the channel's text."""
        self.blocked: Finding | None = None
        """What ended the channel, if anything did."""
        self._plan = plan
        self._held = [Track(watch) for watch in plan.held.watches]
        self._noted = [Track(watch) for watch in plan.noted.watches]
        self._window = Window(position, context)
        self._first = self._out = self._cover = self._window.end
        """First: where the channel's own text begins. Out: what has left ends. Cover: the last mask ends so far."""
        self._noted_at = self._settled = 0
        """Settled: every match that begins before is decided, as far as the last closer look tells; of the window."""
        self._look_at = self._window.end + _GLANCES
        """Up to this place a glance may do."""
        self._begun: dict[int, int] = {}
        """Of findings that have not ended: the position of the place where they begin."""
        self._hidden: list[tuple[int, int]] = []
        self._blocks: list[Finding] = []
        self._untold: list[tuple[int, Finding]] = []
        """Findings that are told once nothing that ends the channel can begin before them; by place."""

    @property
    def held(self) -> int:
        """How many characters wait."""
        return self._window.position(self._window.end) - self._window.position(self._out)

    def feed(self, delta: str) -> str:
        """Take the next piece of the text and return what may leave. Cost O(len(delta)), amortised."""
        return "".join(piece.text for piece in self.pieces(delta))

    def flush(self) -> str:
        """Return what was held back: the text ends here, nothing may be fed after it."""
        return "".join(piece.text for piece in self.pieces("", final=True))

    def pieces(self, delta: str, final: bool = False, written: list[tuple[int, str]] | None = None) -> list[Piece]:
        """Do what `feed` does, or `flush` if `final`, and tell text from masks.

        `written`: where the text is written otherwise than it is meant (`Window.append`); pieces are what is written.
        """
        if self.blocked is not None:
            return []
        self._window.append(delta, written)
        stop = None if final else self._glance()
        return self._look_closely(final) if stop is None else self._up_to(stop)

    def take(self, delta: str) -> int | list[Piece]:
        """Do what `pieces` does; tell how many characters leave as they came, where that is all there is."""
        if self.blocked is not None:
            return 0
        window = self._window
        window.append(delta)
        stop = self._glance()
        if stop is None:
            pieces = self._look_closely(False)
            return pieces[0].taken if len(pieces) == 1 and not pieces[0].masked else pieces
        out = self._out
        if stop <= out:
            return 0
        self._out = stop
        return window.characters(out, stop)

    def _glance(self) -> int | None:
        """Return up to where text may leave, `None` where only a closer look tells. It would tell the same."""
        window, look_at = self._window, self._look_at
        if not look_at:
            return None
        data, end = window.data, window.end
        if b" " not in data[-base64_runs.SHORTEST :] and base64_runs.ends_in_run(data) and end < look_at + _PATIENCE:
            return self._out
        if end >= look_at:
            return None
        stop = self._plan.held.open_from(data, self._settled, self._cover - window.base)
        return None if stop is None else window.base + stop

    def _up_to(self, stop: int) -> list[Piece]:
        """Let out the text before `stop`."""
        pieces: list[Piece] = []
        self._let_out(pieces, stop)
        return pieces

    def _look_closely(self, final: bool) -> list[Piece]:
        """Let all rules look, and return what is decided."""
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
        """Note from where a glance has to look, and when a closer look is due: at once where something is found."""
        tracks = self._held
        is_quiet = self._cover <= self._out and not (
            self._hidden or self._blocks or any(track.runs for track in tracks)
        )
        self._look_at = self._window.end + _GLANCES if is_quiet else 0
        self._settled = min([track.settled for track in tracks], default=0)

    def _advance(self, tracks: list[Track], team: Team, final: bool) -> None:
        """Let rules look at the window and take note of what they found."""
        if not tracks:
            return
        data, base = self._window.data, self._window.base
        first = min([track.settled for track in tracks])
        hits = team.hits(data[max(0, first - boundaries.REACH) :])
        for number, track in enumerate(tracks):
            for finding in track.advance(data, hits.get(number, ()), final):
                self._note(replace(finding, start=base + finding.start, end=base + finding.end))
            for run in track.runs:
                start = max(base + run.finding.start, self._first)
                if start not in self._begun:
                    self._begun[start] = self._window.position(start)

    def _note(self, finding: Finding) -> None:
        """Take a finding that has ended. What lies in the context is none of this channel."""
        action = self._plan.action(finding)
        if action == "allow" or finding.end <= self._first:
            return
        if finding.start < self._first:
            finding = replace(finding, start=self._first)
        self._untold.append((finding.start, self._told(finding)))
        if action == "redact":
            insort(self._hidden, (finding.start, finding.end))
        elif action == "block":
            insort(self._blocks, finding, key=place)

    def _release(self, final: bool) -> list[Piece]:
        """Return what may leave: every part of which all that could reach into it is known."""
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
        """Let out and hide up to the last mask that is told; return up to where the text behind it may leave."""
        if block is not None and block.start <= stop:
            stop = block.start
        for start, end in spans:
            if start < self._cover:
                self._cover = max(self._cover, min(end, self._window.end))
        self._swallow(pieces)
        for start, end in _joined(spans, self._cover):
            self._let_out(pieces, min(start, stop))
            if self._out < start or not self._is_told(start, end, sure) or (block and block.start <= start):
                return self._out
            self._hide(pieces, start, end, block)
        self._hidden = [(start, end) for start, end in self._hidden if end > self._out]
        return stop

    def _spans(self) -> tuple[list[tuple[int, int]], Finding | None]:
        """Return what is to be hidden, by place, and the first finding that is to be blocked."""
        spans, blocks = self._hidden, self._blocks
        if not self._begun:
            return spans, blocks[0] if blocks else None
        for track in self._held:
            for run in track.runs:
                action = self._plan.action(run.finding)
                start = max(self._window.base + run.finding.start, self._first)
                if action == "redact":
                    spans = sorted([*spans, (start, _ENDLESS)])
                elif action == "block":
                    blocks = sorted([*blocks, replace(run.finding, start=start, end=self._window.end)], key=place)
        return spans, blocks[0] if blocks else None

    def _stop(self, spans: list[tuple[int, int]]) -> int:
        """Return up to where nothing can become part of a finding, but for what every mask keeps of it."""
        covered = max([self._cover, *[end for _, end in spans]]) - self._window.base
        data = self._window.data
        stop = len(data)
        for track in self._held:
            undecided = track.undecided
            if undecided < stop:
                if track.watch.kept and undecided >= covered:
                    undecided = head_end(data, undecided)
                stop = min(stop, undecided)
        return self._window.base + stop

    def _is_told(self, start: int, end: int, sure: int) -> bool:
        """Tell whether the mask of what is hidden from `start` to `end` (at least) cannot change any more."""
        if sure >= end:
            return True
        return sure >= start + mask.KEPT and len(self._window.meant(start, min(end, self._window.end))) >= _SURE

    def _hide(self, pieces: list[Piece], start: int, end: int, block: Finding | None) -> None:
        """Put a mask in place of a part of which some first characters may have left."""
        window = self._window
        end = min(end, window.end)
        head = window.meant(start, min(start + mask.KEPT, end if block is None else min(end, block.start)))
        kept = len(mask.kept(head, len(window.meant(start, end))))
        left = len(window.shown(start, self._out))
        masked = (window.shown(start, start + kept) + mask.STARS)[left:]
        pieces.append(Piece(masked, window.position(end) - window.position(self._out), True))
        self._cover = self._out = end

    def _swallow(self, pieces: list[Piece]) -> None:
        """Leave out what belongs to the last mask."""
        if self._cover > self._out:
            taken = self._window.position(self._cover) - self._window.position(self._out)
            pieces.append(Piece("", taken, True))
            self._out = self._cover

    def _let_out(self, pieces: list[Piece], until: int) -> None:
        """Let the text up to `until` leave as it came."""
        if until > self._out:
            text = self._window.shown(self._out, until)
            pieces.append(Piece(text, len(text)))
            self._out = until

    def _block(self, finding: Finding) -> None:
        """End the channel. What the rules that wait for nothing found before is told."""
        self._advance(self._noted, self._plan.noted, final=True)
        self.blocked = self._told(finding)
        before = [told for start, told in self._untold if start <= finding.start]
        self.findings += before if self.blocked in before else [*before, self.blocked]

    def _told(self, finding: Finding) -> Finding:
        """Return `finding` with its offsets in characters of the channel."""
        start, end = finding.start, self._window.position(finding.end)
        if start < self._window.base:
            return replace(finding, start=self._begun[start], end=end)
        return replace(finding, start=self._window.position(start), end=end)

    def _shift(self) -> None:
        """Forget what is no longer needed of the window."""
        if len(self._window.data) < _SHIFT:
            return
        needed = min([track.needs_from() for track in (*self._held, *self._noted)], default=len(self._window.data))
        needed = min(needed, self._out - self._window.base) - _LEFT
        if needed >= _SHIFT:
            size = self._window.cut(needed)
            for track in (*self._held, *self._noted):
                track.shift(size)


def _actions(rule: Rule, action: Decide) -> set[Action]:
    """Return what may be done about findings of a rule: a checksum that fails makes them less severe."""
    severities: set[Severity] = {rule.severity}
    if rule.checksum and rule.severity == "high":
        severities.add("medium")
    return {action(Finding(rule.id, rule.category, severity, 0, 0)) for severity in severities}


def _holding(rule: Rule, blocks: bool) -> tuple[bool, int]:
    """Return whether a context leads to the secret of a rule that holds back, and what its masks keep at least."""
    leads = openings.has_lead(rule)
    keeps = not leads and not blocks and openings.least_secret(rule) >= _SURE
    return leads, mask.KEPT if keeps else 0


def _joined(spans: list[tuple[int, int]], cover: int) -> list[tuple[int, int]]:
    """Return the parts to be hidden behind `cover`; those that overlap are one."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        elif start >= cover:
            joined.append((start, end))
    return joined
