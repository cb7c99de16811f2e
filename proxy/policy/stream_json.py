"""Scan a JSON document that comes in fragments, such as the arguments of a tool call, and keep it one.

    {"password": "Winter\\u00324!x\\n", "port": 5432}
                  ~~~~~~~~~~~~~~~~~~                  scanned: what the string means, with its key before it
                                              ~~~~    a number: scanned whole; hidden, it becomes a string

Every string, keys too, is a text of its own, scanned by a `StreamScanner` as what it means: an escape counts as the one
character it stands for, so none hides anything and none is ever cut. Masks are made of letters, digits and `*+-_`, so a
string with a mask in it is a string. All that is not hidden leaves as it was written.

A text that does not begin like JSON, or goes on as none does (a bare word, nesting beyond reason), is scanned as plain
text from there on. What is decided depends on the text alone, so it is the same for every way of cutting.

Source: RFC 8259
"""

import re
from typing import Final

from proxy.findings import Finding
from proxy.policy import places
from proxy.policy.stream_scan import Piece, StreamPlan, StreamScanner

_STRUCTURE: Final = re.compile(r"[\s{}\[\]:,]+")
_BARE: Final = re.compile(r'[^\s{}\[\]:,"]+')
_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_STRING: Final = re.compile(r'[^"\\]+|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]|\\')
_UNFINISHED: Final = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_MEANINGS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LONGEST_SCALAR: Final = 64
_DEEPEST: Final = 1000
_KEY: Final = 64
"""How many last characters of a key are context."""


class JsonScanner:
    """One channel whose text is a JSON document. The same interface as `StreamScanner`; offsets are of its raw text."""

    def __init__(self, plan: StreamPlan) -> None:
        self.findings: list[Finding] = []
        self.blocked: Finding | None = None
        self._plan = plan
        self._scanner: StreamScanner | None = None
        """Of the string that has begun and not ended, or of the rest of the text where that is plain."""
        self._is_plain = False
        self._has_begun = False
        self._position = 0
        """Characters before what is looked at next."""
        self._tail = ""
        """An escape or a bare word that may not have come whole."""
        self._nesting: list[tuple[str, str]] = []
        """Every bracket that is open, and what the members of a list are called: as the list is."""
        self._key = ""
        self._last = ""
        """The end of the last string, which is a key if a colon follows."""
        self._pieces: list[Piece] = []

    @property
    def held(self) -> int:
        """How many characters wait."""
        return len(self._tail) + (self._scanner.held if self._scanner else 0)

    def pieces(self, delta: str, final: bool = False) -> list[Piece]:
        """Take the next text and return what may leave now. `final`: the document ends here."""
        text, at = self._tail + delta, 0
        self._tail = ""
        self._pieces = []
        while at < len(text) and self.blocked is None:
            if self._is_plain:
                self._scan(text[at:], None, False, len(text) - at)
                at = len(text)
            elif self._scanner:
                at = self._in_string(text, at, final)
            else:
                at = self._between(text, at, final)
            if self._tail:
                break
        if final and self._scanner and self.blocked is None:
            self._scan("", None, True, 0)
        return _merged(self._pieces)

    def take(self, delta: str) -> int | list[Piece]:
        """Do what `pieces` does; tell how many characters leave as they came, where that is all there is."""
        pieces = self.pieces(delta)
        return pieces[0].taken if len(pieces) == 1 and not pieces[0].masked else pieces

    def _between(self, text: str, at: int, final: bool) -> int:
        """Read what stands between strings; return how far."""
        if structure := _STRUCTURE.match(text, at):
            known = self._follow(text, at, structure.end())
            self._let_out(text[at:known])
            return known if known == structure.end() else self._go_plain(known)
        if not self._has_begun and text[at] != '"':
            return self._go_plain(at)
        self._has_begun = True
        if text[at] == '"':
            self._let_out('"')
            self._scanner = StreamScanner(self._plan, self._position, places.lead(self._key))
            self._last = ""
            return at + 1
        bare = _BARE.match(text, at)
        end = bare.end() if bare else at
        if end == len(text) and not final and end - at <= _LONGEST_SCALAR:
            self._tail = text[at:]
            return end
        if end - at > _LONGEST_SCALAR or not _SCALAR.fullmatch(text, at, end):
            return self._go_plain(at)
        self._scalar(text[at:end])
        return end

    def _follow(self, text: str, at: int, end: int) -> int:
        """Keep in mind where in the document we are; return how far it is one."""
        for index in range(at, end):
            mark = text[index]
            if mark in "{[":
                self._has_begun = True
                self._key = self._key if mark == "[" else ""
                self._nesting.append((mark, self._key))
                if len(self._nesting) > _DEEPEST:
                    return index
            elif not self._has_begun and not mark.isspace():
                return index
            elif mark in "}]" and self._nesting:
                self._nesting.pop()
            if mark == ":":
                self._key = self._last
            elif mark in "}],":
                self._key = self._nesting[-1][1] if self._nesting else ""
        return end

    def _in_string(self, text: str, at: int, final: bool) -> int:
        """Read what is left of a string, its end included; return how far."""
        meant: list[str] = []
        written: list[tuple[int, str]] = []
        size, begun = 0, at
        while part := _STRING.match(text, at):
            how = part[0]
            if how[0] == "\\" and not final and _UNFINISHED.match(text, at):
                self._tail = text[at:]
                break
            if len(how) == 1 or how[0] != "\\":
                meant.append(how)
            else:
                written.append((size, how))
                meant.append(chr(int(how[2:], 16)) if how[1] == "u" else _MEANINGS.get(how[1], how[1]))
            size += len(meant[-1])
            at = part.end()
        is_end = at < len(text) and not self._tail
        self._last = (self._last + "".join(meant))[-_KEY:]
        self._scan("".join(meant), written, is_end, at - begun)
        if is_end and self.blocked is None:
            self._scanner = None
            self._let_out('"')
            return at + 1
        return at

    def _scan(self, meant: str, written: list[tuple[int, str]] | None, final: bool, size: int) -> None:
        """Give text to the scanner that is at work and take over what it says. `size`: how long it was written."""
        scanner = self._scanner
        if scanner is not None:
            told = len(scanner.findings)
            self._pieces += scanner.pieces(meant, final, written)
            self.findings += scanner.findings[told:]
            self.blocked = scanner.blocked
            self._position += size

    def _scalar(self, text: str) -> None:
        """Scan a number whole; where any of it is hidden, a string takes its place. `true` and its like say nothing."""
        context = places.lead(self._key).removesuffix('"')
        if text[0].isalpha() or not self._plan.may_match(context + text):
            self._let_out(text)
            return
        scanner = StreamScanner(self._plan, self._position, context)
        pieces = [*scanner.pieces(text), *scanner.pieces("", final=True)]
        self.findings += scanner.findings
        self.blocked = scanner.blocked
        if self.blocked is None and any(piece.masked for piece in pieces):
            masked = "".join(piece.text for piece in pieces)
            self._pieces.append(Piece(f'"{masked}"', len(text), True))
            self._position += len(text)
        elif self.blocked is None:
            self._let_out(text)

    def _go_plain(self, at: int) -> int:
        """Scan the rest as plain text."""
        self._is_plain = True
        self._scanner = StreamScanner(self._plan, self._position)
        return at

    def _let_out(self, text: str) -> None:
        self._pieces.append(Piece(text, len(text)))
        self._position += len(text)


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Return `pieces` with neighbours that are text put together."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not piece.masked and not merged[-1].masked:
            merged[-1] = Piece(merged[-1].text + piece.text, merged[-1].taken + piece.taken)
        else:
            merged.append(piece)
    return merged
