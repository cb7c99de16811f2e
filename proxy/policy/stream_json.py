"""Scans a JSON document that arrives in fragments, such as the arguments of a tool call, and keeps it valid.

    {"password": "Winter\\u00324!x\\n", "port": 5432}
                  ~~~~~~~~~~~~~~~~~~                  scanned: the decoded string, with its key before it
                                              ~~~~    a number: scanned whole; if hidden, it becomes a string

Every string, including keys, is a text of its own, scanned in decoded form by a `StreamScanner`: an escape counts as
the one character it represents, so it neither hides anything nor is ever cut. Masks consist of letters, digits and
`*+-_`, so a string stays a string. Everything that is not hidden keeps its original form.

Text that does not begin like JSON, or becomes invalid (a bare word, extreme nesting), is scanned as plain text from
there on. The decisions depend on the text alone, so they are the same for every way of splitting it.

Source: RFC 8259
"""

import re
from typing import Final

from proxy.nouns.findings import Finding
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
"""How many of a key's last characters are context."""


class JsonScanner:
    """One channel with a JSON document. Same interface as `StreamScanner`; offsets refer to its raw text."""

    def __init__(self, plan: StreamPlan) -> None:
        self.findings: list[Finding] = []
        self.blocked: Finding | None = None
        self._plan = plan
        self._scanner: StreamScanner | None = None
        """Of the current unfinished string, or of the rest of the text if that is plain."""
        self._is_plain = False
        self._has_begun = False
        self._position = 0
        """Number of characters that were processed."""
        self._tail = ""
        """An escape or a bare word that may be incomplete."""
        self._nesting: list[tuple[str, str]] = []
        """Every open bracket, and the key that is the context of its values; a list inherits its own."""
        self._key = ""
        self._last = ""
        """The end of the last string, which is a key if a colon follows."""
        self._pieces: list[Piece] = []

    @property
    def held(self) -> int:
        """Number of characters held back."""
        return len(self._tail) + (self._scanner.held if self._scanner else 0)

    def pieces(self, delta: str, final: bool = False) -> list[Piece]:
        """Take the next text and return what may be sent now. `final`: the document ends here."""
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

    def resumed(self) -> "JsonScanner":
        """Return the scanner for fragments that continue the ended document: itself, wherever that broke off."""
        if self._scanner is not None:
            self._scanner = self._scanner.resumed()
        return self

    def take(self, delta: str) -> int | list[Piece]:
        """Do the same as `pieces`, but return just a character count if that much text may be sent unchanged."""
        pieces = self.pieces(delta)
        return pieces[0].taken if len(pieces) == 1 and not pieces[0].masked else pieces

    def _between(self, text: str, at: int, final: bool) -> int:
        """Read the text between strings; return the position reached."""
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
        """Track the position in the document; return how far it is valid."""
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
        """Read the rest of a string, including its end; return the position reached."""
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
        """Pass text to the current scanner and collect its output. `size`: the length in its original form."""
        scanner = self._scanner
        if scanner is not None:
            self._pieces += scanner.pieces(meant, final, written)
            self.findings += scanner.findings
            scanner.findings.clear()
            self.blocked = scanner.blocked
            self._position += size

    def _scalar(self, text: str) -> None:
        """Scan a number whole; if any of it is hidden, a string replaces it. Literals such as `true` are skipped."""
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
    """Return `pieces` with adjacent unmasked pieces joined."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not piece.masked and not merged[-1].masked:
            merged[-1] = Piece(merged[-1].text + piece.text, merged[-1].taken + piece.taken)
        else:
            merged.append(piece)
    return merged
