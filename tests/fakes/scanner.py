"""A policy of three rules, simple enough to be checked by eye: `KEY-` and eight digits is masked, `BOOM` blocks, `psst`
is flagged. Held back is what could become one of the first two.
"""

import re
from dataclasses import dataclass, field

from proxy.nouns.findings import Finding
from proxy.nouns.scanners import ScannedText

MASK = "KEY-****"
SECRET = "KEY-12345678"
_RULES = re.compile(r"KEY-[0-9]{8}|BOOM|psst")
_OPENING = re.compile(r"(?:K|KE|KEY|KEY-[0-9]{0,7}|B|BO|BOO)\Z")
_NAMES = {"K": "key", "B": "boom", "p": "psst"}


@dataclass(frozen=True)
class Piece:
    text: str
    taken: int
    masked: bool = False


def found(match: re.Match[str], start: int = 0) -> Finding:
    return Finding(_NAMES[match[0][0]], "secret", "high", start + match.start(), start + match.end())


def masked(text: str) -> str:
    return re.sub(r"KEY-[0-9]{8}", MASK, text)


class FakeChannel:
    def __init__(self, edits: bool) -> None:
        self.findings: list[Finding] = []
        self.blocked: Finding | None = None
        self._edits = edits
        self._held = ""
        self._context = ""
        """Precedes the text and was sent already."""
        self._ending = ""
        self._at = 0

    def pieces(self, delta: str, final: bool = False) -> list[Piece]:
        if self.blocked is not None:
            return []
        if self._context:
            return self._continued(delta, final)
        text, pieces, at = self._held + delta, [], 0
        for match in _RULES.finditer(text):
            finding = found(match, self._at)
            self.findings.append(finding)
            if not self._edits or finding.rule_id == "psst":
                continue
            self._plain(pieces, text[at : match.start()])
            at = match.end()
            if finding.rule_id == "boom":
                self.blocked = finding
                return pieces
            pieces.append(Piece(MASK, at - match.start(), True))
        opening = None if final else _OPENING.search(text, at)
        end = opening.start() if opening else len(text)
        self._plain(pieces, text[at:end])
        self._held = text[end:]
        self._at += end
        self._ending = text[-12:] if final else ""
        return pieces

    def _continued(self, delta: str, final: bool) -> list[Piece]:
        sent, self._context = self._context, ""
        match = next((one for one in _RULES.finditer(sent + delta) if one.start() < len(sent) < one.end()), None)
        if match is None:
            return self.pieces(delta, final)
        hidden = match.end() - len(sent)
        self.findings.append(Finding(_NAMES[match[0][0]], "secret", "high", self._at, self._at + hidden))
        self._at += hidden
        return [Piece(MASK, hidden, True), *self.pieces(delta[hidden:], final)]

    def resumed(self) -> "FakeChannel":
        """A scanner that holds what continues the end of the channel for a part of what stands there."""
        channel = FakeChannel(self._edits)
        channel._context = self._ending
        return channel

    def take(self, delta: str) -> int | list[Piece]:
        pieces = self.pieces(delta)
        return pieces[0].taken if len(pieces) == 1 and not pieces[0].masked else pieces

    def _plain(self, pieces: list[Piece], text: str) -> None:
        if text:
            pieces.append(Piece(text, len(text)))


@dataclass
class FakeScanner:
    edits: bool = True
    unscannable: str = "allow"
    hold_s: float = 1.0
    hold_bytes: int = 4096
    max_channels: int = 64
    hurries: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Place and rule of what was found."""
    unread: list[tuple[str, str]] = field(default_factory=list)
    characters: int = 0
    kinds: list[str] = field(default_factory=list)
    channels: list[FakeChannel] = field(default_factory=list)

    def channel(self, kind="text"):
        self.kinds.append(kind)
        self.channels.append(FakeChannel(self.edits))
        return self.channels[-1]

    def is_clean(self, texts):
        return not any(_RULES.search(text) for text in texts)

    def whole(self, text, kind="text"):
        findings = [found(match) for match in _RULES.finditer(text)]
        blocked = next((finding for finding in findings if finding.rule_id == "boom" and self.edits), None)
        new = masked(text) if self.edits else text
        return ScannedText(text if new == text else new, findings, blocked)

    def found(self, place, findings):
        self.seen += [(place, finding.rule_id) for finding in findings]

    def missed(self, place, reason):
        self.unread.append((place, reason))

    def hurried(self, reason):
        self.hurries.append(reason)

    def saw(self, characters):
        self.characters += characters
