"""Finds everything the rules describe in a complete text.

    text -> UTF-8 -> gate (one pass for all rules) -> exact patterns of the rules it named -> judge

Clean text costs the gate alone. Whether a match is a finding depends on its surroundings only: the characters right
before it, and a bounded number after its beginning. So the streaming scanner, which sees a text in pieces, arrives at
the same findings with the same functions:

    `Matcher.search`  the leftmost match of one rule whose boundary holds. A rejected one does not hide those that begin
                      inside it: `after` returns where to continue
    `Matcher.judge`   whether it is a finding. Reads at most `max_length` characters, so rejections are cheap too
    `Matcher.follow`  where the run of a token's alphabet ends. Inside a finding, no other of its rule begins

Rules are independent: two rules may find the same secret, and findings may overlap. The action for one finding never
depends on another, and whatever any rule wants hidden is hidden.

Rule of the file: offsets are in bytes internally; only `Detector.find` converts them to characters of the text.
"""

import re
import sys
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

from proxy.event_loop.fair_threads import MAIN, give_way
from proxy.nouns.findings import Finding, Severity
from proxy.openai.pieces import encoded
from proxy.policy import base64_runs, boundaries, crowds, openings, patterns, placeholders, prefixes, validators
from proxy.policy.automata import Automaton, Ending, Spans
from proxy.policy.crowds import BLOCK, TOO_LONG_S, Crowds
from proxy.policy.extent import Followed, before_escape, behind_escape, extent
from proxy.policy.found import in_characters, merged
from proxy.policy.gates import Gates, Search
from proxy.policy.patience import Patience
from proxy.policy.repetition import CANDIDATES, Repetition
from proxy.policy.rules import NAME_GROUP, SECRET_GROUP, Rule, RuleSet

_OPAQUE: Final = re.compile(r"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]|\\[^Az]")
_ANCHOR: Final = re.compile(r"[$^]|\\[Az]")
"""The anchors that remain in a pattern without its classes and other escapes."""

_FOLLOWING: Final = 4
"""A match depends on the character that follows it, such as with `\\b`: up to four bytes."""
LARGE: Final = 16_384
"""Smaller texts are scanned on the event loop, which must not wait until what only large ones need is compiled."""
_SLICE: Final = 1024
"""What a scan of limited time reads between two looks at the clock: 10 ms at worst."""
_SHORT: Final = 1 << 17
"""What is longer is scanned by an automaton of its own, in threads."""
PARTS: Final = 8
"""Number of groups in which rules scan base64; see bench/policy_stream.py."""
_PART_MEMORY: Final = 8 << 20


class Candidate(NamedTuple):
    """A match of a pattern, before it is judged. Offsets in bytes."""

    begin: int
    """Where the match begins, context included."""
    start: int
    """Where the secret begins."""
    end: int
    """Where the pattern, or its group `secret`, ended; the run may continue."""
    name: bytes = b""
    """The text of the group `name`: what the secret is called."""


class Matcher:
    """One rule. Its patterns are compiled when a text asks for them: few are, and all together take 9 MB."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self._extent = extent(rule.alphabet)
        self._continues = self._extent.continues if self._extent else frozenset()
        self._is_anchored = _ANCHOR.search(_OPAQUE.sub("", rule.pattern)) is not None
        self._begins = boundaries.BOUNDARIES[rule.boundary]
        self._next_place = _next_byte if rule.boundary in boundaries.INSIDE_WORDS else boundaries.next_place
        self._validators = tuple(validators.VALIDATORS[name] for name in rule.validators)
        self._checksum = validators.VALIDATORS[rule.checksum] if rule.checksum else None
        self._is_graded = rule.placeholders or self._checksum is not None
        self._widest = prefixes.width_of(rule.pattern)[1] or sys.maxsize
        self.view = min(self._widest + rule.max_length + _FOLLOWING, sys.maxsize)
        """How many bytes from its beginning decide about a match; those of its run behind `max_length` do not."""
        self._refused = ""
        """The text rejected last, as repetitive texts contain the same one over and over."""

    def may_match(self, data: bytes) -> bool:
        """Tell whether there is anything to judge in `data`, or in one of its lines."""
        return self._is_anchored or self._pattern.search(data, 0) is not None

    def matches(self, data: bytes, at: int = 0) -> Iterator[Finding]:
        """Yield the findings in `data` that begin at or after `at`, in order, without overlap. Offsets in bytes."""
        repetition = Repetition(self.view)
        is_large = len(data) >= LARGE
        next_match = self._next_at_word if is_large and self.rule.boundary == "number" else self._pattern.search
        crowd = self._crowds if is_large else None
        begins, group, decided = self._begins, self._group, repetition.decided
        while (found := next_match(data, at)) is not None:
            begin = found[0][0]
            if len(decided) >= CANDIDATES:
                again: list[Finding] = []
                first, count = decided[0][0], len(decided)
                at = repetition.skip(data, begin, again)
                for each in again:  # noqa: UP028 - within `yield from` no other thread goes on, for half a million
                    yield each
                if at > begin:
                    continue
                if crowd is not None and crowd.begins(data, first, count, begin):
                    begun = time.thread_time()
                    at = self._read_block(crowd, data, begin, decided)
                    yield from [finding for _, finding in decided if finding is not None]
                    if time.thread_time() - begun > TOO_LONG_S:
                        crowd = None
                    continue
            finding = self._judged(data, *found[group], self._called(data, found)) if begins(data, begin) else None
            decided.append((begin, finding))
            if finding is None:
                at = self._next_place(data, begin)
            else:
                yield finding
                at = finding.end

    def _read_block(self, crowd: Crowds, data: bytes, at: int, decided: list[tuple[int, Finding | None]]) -> int:
        """Judge every match that begins in the block at `at`. Returns where to continue."""
        until = at + BLOCK
        begins, judged, group, name = self._begins, self._judged, self._group + 1, self._name + 1
        for match, may_count in crowd.block(data, at):
            begin = match.start()
            if begin < at:
                continue
            if begin >= until:
                break
            finding = None
            if may_count and (data[begin - 1] in boundaries.APART or begins(data, begin)):
                finding = judged(data, *match.span(group), match[name] if name > 1 else b"")
            decided.append((begin, finding))
            if finding is not None:
                at = finding.end
        return min(max(at, until), len(data))

    def search(self, data: bytes, at: int) -> Candidate | None:
        """Return the leftmost match that begins at or after `at`, with its boundary satisfied."""
        while (found := self._pattern.search(data, at)) is not None:
            begin = found[0][0]
            if self._begins(data, begin):
                return self._candidate(data, found)
            at = self._next_place(data, begin)
        return None

    def after(self, data: bytes, candidate: Candidate) -> int:
        """Return where to search after `candidate` is rejected."""
        return self._next_place(data, candidate.begin)

    def judge(self, data: bytes, candidate: Candidate) -> Finding | None:
        """Return the finding, `None` if it is rejected. Cost O(max_length), and O(run) if accepted."""
        return self._judged(data, candidate.start, candidate.end, candidate.name)

    def _judged(self, data: bytes, start: int, end: int, called: bytes) -> Finding | None:
        if self._not_named is not None and self._not_named.search(called, 0) is not None:
            return None
        rule = self.rule
        goes_on = end < len(data) and data[end] in self._continues
        if goes_on and rule.exact:
            return None
        start = behind_escape(data, start)
        if self._extent is None:
            end = before_escape(data, start, end)
        most = start + rule.max_length
        seen = self._end(data, end, min(most, len(data))) if goes_on else end
        secret = data[start : seen if seen < most else most].decode("utf-8", "replace")
        severity = None if secret == self._refused else self._severity(secret)
        if severity is None:
            self._refused = secret
            return None
        return Finding(rule.id, rule.category, severity, start, self._end(data, end, len(data)) if goes_on else end)

    def follow(self, data: bytes, at: int, final: bool) -> Followed:
        """Follow the run that continues at `at`."""
        if self._extent is None:
            return Followed(at, at, at)
        end, is_open = self._extent.reach(data, at, len(data), final)
        if not is_open:
            end = self._with_until(data, at, end)
            return Followed(end, end, end)
        if self._until is None:
            return Followed(None, end, end)
        seen = data if end == len(data) else data[:end]
        open_from = self._until_open.start(seen, at)
        last = self._until.search(seen, at)
        return Followed(last[0][1] if last and last[0][0] < open_from else None, open_from, end)

    def _severity(self, secret: str) -> Severity | None:
        """Return the severity of `secret` once the pattern matched, `None` if it is not a secret after all."""
        for accepts in self._validators:
            if not accepts(secret):
                return None
        if self._allow is not None and self._allow.accepts(encode(secret)):
            return None
        if placeholders.is_published(secret):
            return None
        if not self._is_graded:
            return self.rule.severity
        valid = self._checksum is not None and self._checksum(secret)
        if self.rule.placeholders and not valid and placeholders.is_placeholder(secret):
            return None
        return "medium" if self._checksum and not valid and self.rule.severity == "high" else self.rule.severity

    def _next_at_word(self, data: bytes, at: int) -> Spans | None:
        """Return the leftmost match from `at` on, without most of those inside words, which no boundary accepts.

        In a row of digits each could begin a match, and every combination of those is a state that RE2 has to build.
        """
        if self._at_words is None or boundaries.may_follow_escape(data, at):
            return self._pattern.search(data, at)
        found = self._at_words.search(data, at)
        if found is None or boundaries.is_bare(data[found[0][0]]):
            return found
        return self._pattern.search(data, found[0][0])

    @cached_property
    def _pattern(self) -> Automaton:
        return Automaton(self.rule.pattern)

    @cached_property
    def _group(self) -> int:
        return self._pattern.groups.get(SECRET_GROUP, 0)

    @cached_property
    def _name(self) -> int:
        return self._pattern.groups.get(NAME_GROUP, 0)

    @cached_property
    def _until(self) -> Automaton | None:
        return Automaton(patterns.bounded(self.rule.until)) if self.rule.until else None

    @cached_property
    def _until_open(self) -> Ending:
        return Ending([prefixes.closure(prefixes.parse(patterns.bounded(self.rule.until)))])

    @cached_property
    def _allow(self) -> Automaton | None:
        allow = self.rule.allow
        return Automaton("|".join(f"(?:{allowed})" for allowed in allow)) if allow else None

    @cached_property
    def _not_named(self) -> Automaton | None:
        names = self.rule.not_named
        return Automaton("|".join(f"(?:{name})" for name in names)) if names else None

    @cached_property
    def _at_words(self) -> Automaton | None:
        """The pattern behind the beginning of a word or an escape, compiled when a large text needs it."""
        pattern = openings.at_words(self.rule)
        return Automaton(pattern) if pattern else None

    @cached_property
    def _crowds(self) -> Crowds | None:
        """What reads texts that are full of matches, compiled when a large text comes."""
        pattern = crowds.compiled(self.rule)
        return Crowds(self.rule, pattern, self._widest) if pattern else None

    def _candidate(self, data: bytes, found: Spans) -> Candidate:
        return Candidate(found[0][0], *found[self._group], self._called(data, found))

    def _called(self, data: bytes, found: Spans) -> bytes:
        """Return what the secret is called."""
        return data[slice(*found[self._name])] if self._name else b""

    def _end(self, data: bytes, at: int, stop: int) -> int:
        """Return where the finding that continues at `at` ends, including `until`; reads nothing from `stop` on."""
        if self._extent is None or self.rule.exact or at >= stop:
            return at
        return self._with_until(data, at, self._extent.reach(data, at, stop).end)

    def _with_until(self, data: bytes, at: int, end: int) -> int:
        """Return where a run from `at` to `end` ends if its first `until` ends it."""
        last = self._until.search(data, at, end) if self._until else None
        return last[0][1] if last else end


class Detector:
    """All rules of a set. Immutable, so any thread may use it.

    The event loop has a gate of its own. RE2 locks an automaton whose memory is used up, and until the end of the pass
    nobody else can use it: a line scanned on the loop would wait 2.4 s for 4 MB of random words in a thread.
    """

    def __init__(self, rules: RuleSet, gates: Gates | None = None) -> None:
        """`gates`: of the process, `None` for a detector that shares nothing."""
        self.rules = rules
        self.matchers = tuple(Matcher(rule) for rule in rules.rules)
        self.gates = gates or Gates()
        self.patterns = tuple(map(openings.gate, rules.rules))
        """Of each rule, what tells whether it can match in a text."""

    def prepare(self) -> None:
        """Compile what the first texts would wait for."""
        self._gate.hits(b"")
        self._gate_apart.hits(b"")
        self._gate_of_short.hits(b"")

    def suspects(self, data: bytes, patience: Patience | None = None) -> list[int]:
        """Return the indexes of the rules that may match in UTF-8 text or in one of its lines; none if that is certain.

        Cost: one pass, and another for each rule that the gate reports. Raises TooSlow.
        """
        hits = self._hits(data, patience)
        if not hits:  # nearly always; the generator of a loop over nothing takes as long as the gate's call (callgrind)
            return hits
        return hits if any(self.matchers[index].may_match(data) for index in _unhurried(hits, patience)) else []

    def find(self, text: str, patience: Patience | None = None, suspects: list[int] | None = None) -> list[Finding]:
        """Return the findings in `text`, by position. Those of several rules may overlap. Offsets in characters.

        `suspects`: of this text or one that contains it, if known. Cost: O(len(text)); 2.5 microseconds per KB of clean
        text, twice that with `patience`. Raises TooSlow.
        """
        data = encode(text)
        hits = self._hits(data, patience) if suspects is None else suspects
        if not hits:
            return []
        found = merged([list(self.matchers[index].matches(data)) for index in _unhurried(hits, patience)])
        if len(data) != len(text):
            in_characters(data, found)
        return found

    def hits_of_stream(self, data: bytes, for_loop: bool = False) -> list[int]:
        """Return the indexes of the rules that may match in a part of a stream, in no particular order.

        `for_loop`: a thread asks in place of the event loop, to warm up what the loop will use.
        """
        if len(data) < LARGE and (for_loop or threading.get_ident() == MAIN):
            return self._gate.hits(data)
        return self._hits(data, None)

    def _hits(self, data: bytes, patience: Patience | None) -> list[int]:
        """Return the indexes of the rules that may match, in no particular order.

        On random letters, an automaton of all rules keeps building new states. Automata of fewer rules have fewer, so
        there each group of rules gets its own pass: many times as fast, though slower for all other texts.
        """
        if len(data) >= LARGE and base64_runs.is_mostly_runs(data):
            return [part + PARTS * index for part, group in enumerate(self._parts) for index in group.hits(data)]
        if threading.get_ident() != MAIN:
            give_way()
            return (self._gate_apart if len(data) > _SHORT else self._gate_of_short).hits(data)
        if patience is not None and len(data) > _SLICE:
            # The states that take the time are built piece by piece, and then the whole text takes the usual time.
            for at in range(0, len(data), _SLICE):
                self._gate.hits(data[at : at + _SLICE])
                patience.check()
        return self._gate.hits(data)

    @cached_property
    def _gate(self) -> Search:
        """The gate for the event loop."""
        return self.gates.search("loop", self.patterns)

    @cached_property
    def _gate_apart(self) -> Search:
        """The gate for long texts, in threads."""
        return self.gates.search("thread", self.patterns)

    @cached_property
    def _gate_of_short(self) -> Search:
        """The same for others, which would wait for as long as a long text of the worst kind locks that one."""
        return self.gates.search("short", self.patterns)

    @cached_property
    def _parts(self) -> list[Search]:
        """Groups of rules, compiled when the first such text comes: they take 2 MB. At worst, two threads do so."""
        wanted, made = self.patterns, []
        for part in range(PARTS):
            give_way()
            made.append(self.gates.search(f"base64 {part}", wanted[part::PARTS], _PART_MEMORY))
        return made


def encode(text: str) -> bytes:
    """Return UTF-8 with a `?` for every lone surrogate: always valid, and one character stays one."""
    return encoded(text, "replace")


def _unhurried(hits: list[int], patience: Patience | None) -> Iterator[int]:
    """Yield the indexes of rules as long as there is time. Raises TooSlow."""
    for index in hits:
        yield index
        if patience is not None:
            patience.check()


def _next_byte(_data: bytes, at: int) -> int:
    return at + 1
