"""Find and mask in a stream of text what the rules describe, whichever way the stream is cut.

    StreamPlan(detector, action)    once per policy: rules grouped, closures compiled
      .scanner() -> StreamScanner   once per channel of an answer: choice x content, reasoning, tool arguments, ...
        .feed(delta)                the text that may leave now
        .flush()                    the rest; call it before the channel's end is told

    .......................|~~~~~~~~~~~~~~~~|
          has left         ^ hold-back      ^ what has come

Law: what leaves, put together, is `mask.redact` of the whole text with those of `Detector.find`'s findings whose action
is `redact`, for every way of cutting. Held back is only what could still become part of a match; of that, the first
characters that every mask keeps leave at once, so a prefix such as `ghp_` waits for nothing. Text without a match
leaves as it came.

A token that goes on beyond its rule's limits is masked once and swallowed while it lasts, so memory is bounded. Findings
of one category that overlap are one, as in whole texts, so all rules of a category hold back if one of them may have to;
only a flagged token that is endless is let go while it runs. A finding to be blocked ends the channel: the text before
it has left, nothing of it has, and nothing follows.

Cost: a few microseconds per delta; see `bench/policy_stream.py`.
"""

import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from proxy.policy import boundaries, mask, openings
from proxy.policy.detect import Finding, Matcher, detector
from proxy.policy.rules import Category, Rule, RuleSet
from proxy.policy.stream_track import Track

Action = Literal["allow", "flag", "redact", "block"]
Decide = Callable[[Finding], Action]
"""Says what is done about a finding. Only its rule, category and severity may decide."""

_LEFT: Final = 2 * boundaries.REACH
_SHIFT: Final = 256
_SURE: Final = 4 * mask.KEPT
"""From this length on a mask keeps all it ever keeps."""
_HEAD: Final = re.compile(rb"[A-Za-z0-9_+-]{0,4}")
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
        actions: dict[Category, set[Action]] = {}
        for matcher in detector.matchers:
            actions.setdefault(matcher.rule.category, set()).update(_actions(matcher.rule, action))
        self.held = frozenset(category for category, found in actions.items() if found & {"redact", "block"})
        """Categories of which something may have to be hidden or blocked."""
        self._blocked = frozenset(category for category, found in actions.items() if "block" in found)
        groups: dict[tuple[bool, bool, int], list[Matcher]] = {}
        for matcher in detector.matchers:
            if actions[matcher.rule.category] != {"allow"}:
                groups.setdefault(self._group(matcher.rule), []).append(matcher)
        self.watches = tuple(Watch.of(group, holds, leads, kept) for (holds, leads, kept), group in groups.items())

    def scanner(self) -> "StreamScanner":
        """Return a scanner for one channel."""
        return StreamScanner(self)

    def _group(self, rule: Rule) -> tuple[bool, bool, int]:
        """Return whether the rule holds back, whether a context leads to its secret, and what its masks keep."""
        holds = rule.category in self.held
        keeps = holds and rule.category not in self._blocked and openings.least_secret(rule) >= _SURE
        return holds, holds and openings.has_lead(rule), mask.KEPT if keeps else 0


class StreamScanner:
    """One channel of one answer. Places are bytes of the whole stream; `_base` is where the window begins."""

    def __init__(self, plan: StreamPlan) -> None:
        self.findings: list[Finding] = []
        """What was found and has ended. Offsets in characters of the channel's text."""
        self.blocked: Finding | None = None
        """What ended the channel, if anything did."""
        self._plan = plan
        self._tracks = tuple(Track(watch) for watch in plan.watches)
        self._window = b""
        self._base = 0
        self._base_characters = 0
        self._out = 0
        self._masked: int | None = None
        self._pending: list[Finding] = []
        self._characters: dict[int, int] = {}
        self._lone: dict[int, str] = {}

    @property
    def held(self) -> int:
        """How many characters wait."""
        return len(self._text(self._out, self._end))

    def feed(self, delta: str) -> str:
        """Take the next piece of the text and return what may leave. Cost O(len(delta)), amortised."""
        return "".join(piece.text for piece in self.pieces(delta))

    def flush(self) -> str:
        """Return what was held back: the text ends here, nothing may be fed after it."""
        return "".join(piece.text for piece in self.pieces("", final=True))

    def pieces(self, delta: str, final: bool = False) -> list[Piece]:
        """Do what `feed` does, or `flush` if `final`, and tell text from masks."""
        if self.blocked is not None:
            return []
        self._append(delta)
        for track in self._tracks:
            for finding in track.advance(self._window, final):
                self._pending.append(self._placed(finding))
        pieces = self._release(self._end if final else self._limit(), final)
        self._shift()
        return pieces

    @property
    def _end(self) -> int:
        return self._base + len(self._window)

    def _append(self, delta: str) -> None:
        encoded = encode(delta)
        if any(map(_is_lone, delta)) if len(encoded) < 3 * len(delta) and not delta.isascii() else False:
            pass
        self._window += encoded

    def _limit(self) -> int:
        """Return up to where nothing can become part of a match, but for what every mask keeps."""
        covered = max((found.end for found in self._found()), default=0)
        limit = len(self._window)
        for track in self._tracks:
            place = track.undecided
            if track.watch.holds and place < limit:
                if track.watch.kept and self._base + place >= covered:
                    head = _HEAD.match(self._window, place)
                    place = head.end() if head else place
                limit = min(limit, place)
        return self._base + limit
