"""Phase 3, scan_prompt: everything a request says, scanned as text before it is sent.

    document -> every string, joined -> gate: one pass for all rules ---> clean, the usual case
                                         '-> each string by itself -> findings -> actions -> replacements

Also scanned are, one level deep, strings that are JSON themselves (the arguments of tool calls) and base64 that encodes
text (`base64_texts`), and texts as they are read once escapes are undone (`disguises`). Unreadable parts are reported:
media, and anything beyond `nested_bytes`.

Rule of the file: pure, so that it runs on any thread; a clean document costs one gate pass, and is not changed.
Failure mode: any exception is an internal fault; the caller decides whether the request passes (`on_fault`).

Cost: 10 KB of clean text in well under 100 microseconds; linear in the size of the document.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any, Final

import orjson

from proxy.nouns.findings import Finding, Sighting, Unscanned, Verdict, in_steps, let_go
from proxy.openai.binary import encodes_text
from proxy.openai.json_body import edited
from proxy.openai.pieces import PIECE, joined_by
from proxy.policy import base64_runs, base64_texts, disguises, mask, places
from proxy.policy.detect import encode
from proxy.policy.found import merged
from proxy.policy.patience import Patience
from proxy.policy.places import Place
from proxy.policy.policy import Policy

_BETWEEN: Final = "\n"
"""Separates strings in the joined text. It belongs to no word, so the gate sees each string as if it were alone."""
_LONG_RUN: Final = 8192
_KEPT_OF_RUN: Final = 1024
_SIGHTING: Final[Callable[[Iterable[Any]], Sighting]] = partial(tuple.__new__, Sighting)
"""The constructor without its Python part, which costs three times as much: there may be half a million (timeit)."""


@dataclass(slots=True)
class Scanned:
    """The result for one document."""

    characters: int = 0
    sightings: list[Sighting] = field(default_factory=list)
    unscanned: list[Unscanned] = field(default_factory=list)
    sent: dict[Place, str] = field(default_factory=dict)
    """Texts to send instead of those at their places."""
    kept: dict[Place, str] = field(default_factory=dict)
    """Texts to store in a trace instead: every finding is masked, even those that are blocked or only flagged."""

    @property
    def blocked(self) -> Sighting | None:
        """The first finding that blocks the request."""
        return next((sighting for sighting in self.sightings if sighting.action == "block"), None)

    def let_go(self) -> None:
        """Free the findings."""
        if self.sightings:
            let_go(self.sightings)

    def enter(self, verdict: Verdict) -> None:
        """Add everything to the verdict of an exchange."""
        verdict.saw("prompt", self.characters)
        for sighting in self.sightings:
            verdict.add(sighting)
        for part in self.unscanned:
            verdict.miss(part)


def scan(
    policy: Policy, document: Any, nested_bytes: int, patience: Patience | None = None, *, keeps: bool = True
) -> Scanned:
    """Scan every string of `document`, a decoded JSON value; a text that is not JSON is one string. Raises TooSlow.

    `keeps`: whether `kept` is needed; without it, a finding costs less.
    """
    gathered = places.gather(document)
    texts, left_out = gathered.texts, False
    scanned = Scanned(sum(map(len, texts)))
    if gathered.has_media:
        scanned.unscanned += [Unscanned("prompt", places.name(at), "media") for at in places.media(document)]
    if gathered.nested:
        inner, left_out = _decoded(gathered.nested, nested_bytes)
        texts = [*texts, *inner]
    text = _BETWEEN.join(texts) if scanned.characters <= PIECE else joined_by(_BETWEEN, texts)
    data, has_base64, is_cut = _without_binary(encode(text))
    if is_cut or gathered.has_files:
        scanned.unscanned += _binary(document)
    may_be_disguised = disguises.may_hold(text)
    plain = disguises.undone(text[:nested_bytes], patience) if may_be_disguised else None
    has_disguises = plain is not None and bool(policy.detector.suspects(encode(plain.text), patience))
    if has_base64 or has_disguises or policy.detector.suspects(data, patience):
        search = _Search(policy, scanned, nested_bytes, patience, keeps=keeps)
        search.look_at(document, has_base64=has_base64, has_disguises=has_disguises)
        left_out = left_out or search.left_out
    if left_out or (may_be_disguised and len(text) > nested_bytes):
        scanned.unscanned.append(Unscanned("prompt", "", "nested"))
    return scanned


def _decoded(nested: Iterable[str], limit: int) -> tuple[list[str], bool]:
    """Return the texts inside strings that are JSON, and whether some were skipped because there are too many."""
    texts: list[str] = []
    for text in nested:
        limit -= len(text)
        if limit < 0:
            return texts, True
        if (document := _inner(text)) is not None:
            texts += places.gather(document).texts
    return texts, False


def _may_be_nested(text: str) -> bool:
    """Tell whether a text may be JSON with escapes, as `places.gather` does: it finds all else in JSON as it stands."""
    return text[:1] in ("{", "[") and "\\" in text


def _inner(text: str) -> Any:
    """Return the object or list that `text` encodes, `None` if it is neither."""
    try:
        document = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None
    return document if type(document) in (dict, list) else None


def _without_binary(data: bytes) -> tuple[bytes, bool, bool]:
    """Return the text without the middle of binary base64, whether some base64 is text, and whether anything was cut.

    Random letters make the gate build new states: 8 MB of them would take two seconds. The ends of such a run are kept,
    so that a token next to it is found.
    """
    if base64_runs.are_absent(data):  # nearly always
        return data, False, False
    kept: list[bytes] = []
    at, hides = 0, False
    for start, end in base64_runs.runs(data):
        begin = base64_runs.behind_escape(data, start)
        if encodes_text(data[begin : min(end, begin + base64_runs.SHORTEST)]):
            hides = True
        elif end - start > _LONG_RUN:
            kept.append(data[at : start + _KEPT_OF_RUN])
            at = end - _KEPT_OF_RUN
    if not kept:
        return data, hides, False
    return b"".join([*kept, data[at:]]), hides, True


def _binary(document: Any) -> Iterator[Unscanned]:
    """Yield the texts that contain long base64 of binary data, and files that are binary, however short."""
    for place, called, text in places.located(document):
        if places.is_binary_file(called, text) or (
            len(text) > _LONG_RUN and any(end - start > _LONG_RUN for start, end in base64_runs.runs(encode(text)))
        ):
            yield Unscanned("prompt", places.name(place), "binary")


class _Search:
    """Finds in one document what the gate suspects, string by string. `keeps`: whether texts to store are wanted."""

    def __init__(
        self, policy: Policy, scanned: Scanned, nested_bytes: int, patience: Patience | None, *, keeps: bool
    ) -> None:
        self._policy = policy
        self._scanned = scanned
        self._nested_left = self._base64_left = self._disguised_left = nested_bytes
        """Characters that may still be decoded, of each kind by itself: what is long and plain uses up nothing."""
        self._patience = patience
        self._keeps = keeps
        self._has_base64 = False
        self._has_disguises = False
        self.left_out = False
        """There was more in base64 than may be decoded."""

    def look_at(self, document: Any, *, has_base64: bool, has_disguises: bool) -> None:
        """Record all findings, and the replacements to send and to store.

        `has_base64`, `has_disguises`: whether it is worth looking behind those.
        """
        self._has_base64, self._has_disguises = has_base64, has_disguises
        for place, called, text in places.located(document):
            sent, kept = self._text(place, called, text, decode=True)
            if sent != text:
                self._scanned.sent[place] = sent
            if kept != text:
                self._scanned.kept[place] = kept

    def _text(self, place: Place, called: str, text: str, *, decode: bool) -> tuple[str, str]:
        """Return what to send and what to store instead of one string."""
        sent = kept = text
        seen: set[str] = set()
        if decode:
            before = len(self._scanned.sightings)
            sent, kept = self._nested(place, text)
            nested = self._scanned.sightings[before:]
            seen = {sighting.finding.rule_id for sighting in nested if sighting.action != "redact"}  # still in `sent`
        if found := self._find(called, sent, seen, decode=decode):
            actions = self._policy.prompt.of_all(found)
            where = self._place(place)
            for part in in_steps(len(found)):
                together = zip(found[part], actions[part], repeat("prompt"), repeat(where))
                self._scanned.sightings += map(_SIGHTING, together)
            if self._keeps:
                in_kept = found if kept is sent else self._find(called, kept, set(), decode=decode)
                kept = mask.redact(kept, self._to_hide(in_kept))
            if "redact" in actions:
                sent = mask.redact(
                    sent, [each for each, action in zip(found, actions, strict=True) if action == "redact"]
                )
        return sent, kept if self._keeps else sent

    def _to_hide(self, found: Iterable[Finding]) -> Iterator[Finding]:
        """Yield what a trace must not contain: no keywords and commands, unless they are masked for sending."""
        for each in found:
            action = self._policy.prompt(each)
            if action == "redact" or (action != "allow" and each.category in ("secret", "pii")):
                yield each

    def _find(self, called: str, text: str, seen: set[str], *, decode: bool) -> list[Finding]:
        """Return the findings in `text`; rules in `seen` have already reported the JSON in it.

        `decode`: look behind its base64 and its disguises, too.
        """
        found = self._alone(called, text)
        if decode and self._has_base64:
            found = _with_others(found, self._in_base64(text))
        if decode and self._has_disguises:
            found = _with_others(found, self._disguised(called, text))
        return [each for each in found if each.rule_id not in seen] if seen else found

    def _alone(self, called: str, text: str) -> list[Finding]:
        """Return the findings in `text` itself, with its member's name as context."""
        lead = places.lead(called)
        size = len(lead)
        found = self._policy.detector.find(lead + text, self._patience)
        if not size:
            return found
        return [
            each._replace(start=max(each.start - size, 0), end=each.end - size) for each in found if each.end > size
        ]

    def _nested(self, place: Place, text: str) -> tuple[str, str]:
        """Return the same for the JSON inside `text`, which is re-encoded only if something in it changes."""
        if not _may_be_nested(text):
            return text, text
        self._nested_left -= len(text)
        document = _inner(text) if self._nested_left >= 0 else None
        if document is None:
            return text, text
        sent: dict[Place, str] = {}
        kept: dict[Place, str] = {}
        for inner, called, string in places.located(document):
            send, keep = self._text((*place, *inner), called, string, decode=False)
            if send != string:
                sent[inner] = send
            if keep != string:
                kept[inner] = keep
        sending = _written(sent, text)
        return sending, sending if kept == sent else _written(kept, text)

    def _in_base64(self, text: str) -> Iterator[Finding]:
        """Yield the findings in what is encoded in base64; each spans all of that, as no part of it can be masked."""
        for start, end, decoded in base64_texts.encoded(text, self._base64_left):
            self._base64_left -= end - start
            self.left_out = self.left_out or self._base64_left < 0
            for found in self._policy.detector.find(decoded, self._patience):
                yield found._replace(start=start, end=end)

    def _disguised(self, called: str, text: str) -> Iterator[Finding]:
        """Yield the findings in `text` as it is read."""
        if not disguises.may_hold(text):
            return
        looked_at = text[: max(self._disguised_left, 0)]
        self._disguised_left -= len(text)
        plain = disguises.undone(looked_at, self._patience)
        if plain is not None:
            for found in self._alone(called, plain.text):
                yield found._replace(start=plain.origin(found.start), end=plain.origin(found.end))

    def _place(self, place: Place) -> str:
        """Return the name of a place; a key that is itself a finding is masked in it."""
        written = places.name(place)
        return mask.redact(written, self._policy.detector.find(written))


def _written(changes: dict[Place, str], text: str) -> str:
    """Return JSON with `changes` applied; the original text if there are none."""
    if not changes:
        return text
    return edited(text.encode(), lambda exact: places.changed(exact, changes)).decode()


def _with_others(found: list[Finding], hidden: Iterable[Finding]) -> list[Finding]:
    """Return `found` and those of `hidden` that overlap no finding of the same rule in it; all in order of position."""
    return merged([found, [*_others(hidden, found)]])


def _others(hidden: Iterable[Finding], found: list[Finding]) -> Iterator[Finding]:
    known: dict[str, tuple[list[int], list[int]]] = {}
    for each in found:
        starts, ends = known.setdefault(each.rule_id, ([], []))
        starts.append(each.start)
        ends.append(max(each.end, ends[-1]) if ends else each.end)
    for each in hidden:
        starts, ends = known.get(each.rule_id, ([], []))
        before = bisect_left(starts, each.end)
        if not before or ends[before - 1] <= each.start:
            yield each
