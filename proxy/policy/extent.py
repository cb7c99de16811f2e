"""How far a token goes on behind the match of its rule, so that masking leaves what stands around it intact.

    "{\\"key\\": \\"csk-4f...9a\\", \\"n\\": 5}"      JSON in a string: the token ends before the backslash
    "LS0tLS1CRUdJ...\\/Qk\\u002bz"                a slash and a plus as JSON may write them: it goes on
    "MIIEpAIBAAKC\\n" + "x0FtZ..."               two strings of lines: it goes on, if no name of a member begins there
    echo "MIIEpAIBAAKC" >> f; echo "x0FtZ..."    so it does in code, up to 64 bytes further on

A token is a run of characters of its rule's alphabet. A backslash in an alphabet stands for escapes of these characters
and of line breaks, a quote for strings that follow one another, as in arrays of lines and in code. So a token never
ends within an escape, nor between a backslash and the quote that it belongs to, and it ends in a string of the level
where it began: text that was valid JSON at some level of quoting still is, with a mask in place of the token.

Rule of the file: some 200 bytes behind a token decide whether it goes on. In a stream it is open until then.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

_BYTES: Final = bytes(range(256))
_BACKSLASH: Final = ord("\\")
_NOTHING: Final = b"(?!)"
_ESCAPED: Final = {ord("+"): b"u002[bB]", ord("/"): b"/|u002[fF]", ord("="): b"u003[dD]"}
"""How an escape of a character goes on behind its backslashes."""
_OPEN_ESCAPE: Final = re.compile(rb"\\{1,8}(?:u(?:0(?:0[23]?)?)?)?\Z")
_PARTIAL_ESCAPE: Final = re.compile(rb"\\+(?:u[0-9a-fA-F]{0,3})?\Z")
_CUT: Final = 16
_ESCAPED_CHARACTER: Final = re.compile(rb"\\u[0-9a-fA-F]{4}")
_QUOTE: Final = re.compile(rb"\\{0,8}[\"']")
_BETWEEN: Final = re.compile(
    rb"(?:[^\"'\\{}\[\]:]|(?<=[0-9]):|(?<=[A-Za-z0-9_])\[[A-Za-z0-9_]{1,9}\]|\\{1,8}[nrt\n]"
    rb"|'(?:\\{1,8}[nr]){1,2}'|\"(?:\\{1,8}[nr]){1,2}\"|\",\s{0,64}\"[ \t]*(?=\\{0,8}[\"']))*+"
)
"""What stands between two strings of lines: operators, calls, names, line breaks, what a diff or a listing puts before
a line, and the ends of strings in a notebook, where a line of code is one. Nothing of this ends an object or an array,
or begins one."""
_LINE: Final = re.compile(rb"(?:(?:[A-Za-z0-9+/=]|\\{1,8}/){1,140}+(?:\\{1,8}[nr]){0,2}|(?:\\{1,8}[nr]){1,2})")
_LONGEST: Final = 132
"""Bytes of a line that could be a name: a digest is one of up to 128."""
_UNDECIDED: Final = re.compile(
    rb"\\{0,8}|\[[A-Za-z0-9_]{0,9}|[\"'](?:\\{1,8}[nr]){0,2}\\{0,8}|\",\s{0,64}(?:\"[ \t]{0,64}\\{0,8})?"
)
_END: Final = b"-----END"
_COLON: Final = re.compile(rb"\s{0,16}+(?:\Z|\s|:)")
_WIDEST: Final = 64


class Reach(NamedTuple):
    """How far a token goes."""

    end: int
    """Where it ends, as far as can be told."""
    is_open: bool
    """Whether more text could make it longer."""


class Followed(NamedTuple):
    """How far the run of an accepted finding goes. Offsets in bytes."""

    end: int | None
    """Where it ends, `None` if it may go on."""
    at: int
    """Where to continue later."""
    reached: int
    """Up to where everything belongs to it, whatever follows."""


class Extent:
    """The characters that tokens of one rule consist of. Immutable, one object for all rules that have the same."""

    def __init__(self, alphabet: str) -> None:
        characters = frozenset(b"".join(re.findall(alphabet.encode(), _BYTES)))
        self.continues: Final = characters
        """The first bytes of what continues a token."""
        plain = b"".join(b"\\x%02x" % byte for byte in sorted(characters - {_BACKSLASH, *b"\"'"}))
        self._has_escapes = _BACKSLASH in characters
        self._has_quotes = not characters.isdisjoint(b"\"'")
        if not self._has_escapes:
            self._run = re.compile(alphabet.encode() + b"*")
            return
        escaped = [how for character, how in _ESCAPED.items() if character in characters]
        if characters.issuperset(b"\n\r"):
            escaped.append(rb"[nrt\n]")
        single, escapes = b"[%b]" % plain if plain else _NOTHING, b"|".join(escaped) or _NOTHING
        self._run = re.compile(b"(?:(?:%b)+|\\\\{1,8}(?:%b))*+" % (single, escapes))

    def reach(self, data: bytes, at: int, stop: int, final: bool = True) -> Reach:
        """Return how far a token goes that continues at `at`; reads nothing from `stop` on, behind which there may be
        more unless `final`."""
        while True:
            run = self._run.match(data, at, stop)
            end = run.end() if run else at
            if end == stop or not self._has_escapes:
                return Reach(end, not final and end == stop)
            if not final and stop - end <= _CUT and _OPEN_ESCAPE.match(data, end, stop):
                return Reach(end, True)
            joined = _joined(data, end, stop, final) if self._has_quotes else 0
            if joined is None:
                return Reach(end, True)
            if joined <= end:
                return Reach(end, False)
            at = joined


@lru_cache
def extent(alphabet: str) -> Extent | None:
    """Return what tokens of this alphabet consist of, `None` if a match is all of a token."""
    return Extent(alphabet) if alphabet else None


def before_escape(data: bytes, start: int, end: int) -> int:
    """Return `end`, or where the escape begins of which it would cut off a part."""
    cut = _PARTIAL_ESCAPE.search(data, max(start, end - _CUT), end)
    return end if cut is None else max(cut.start(), start + 1)


def behind_escape(data: bytes, start: int) -> int:
    """Return `start`, or where the escape of a character ends in the middle of which that is."""
    before = data.rfind(b"\\", max(0, start - len(b"\\u000")), start)
    whole = _ESCAPED_CHARACTER.match(data, before) if before >= 0 else None
    return whole.end() if whole and whole.end() > start else start


def _joined(data: bytes, at: int, stop: int, final: bool) -> int | None:
    """Return where a token goes on behind the quote at `at`, 0 if it does not, `None` if more text will tell."""
    quote = _QUOTE.match(data, at, stop)
    if quote is None:
        return 0
    between = _BETWEEN.match(data, quote.end(), min(stop, quote.end() + _WIDEST))
    here = between.end() if between else quote.end()
    if here - quote.end() == _WIDEST:
        return 0
    if not data.startswith(quote[0], here, stop):
        rest = data[here:stop]
        return None if not final and (quote[0].startswith(rest) or _UNDECIDED.fullmatch(rest)) else 0
    return _line(data, here + len(quote[0]), stop, final, quote[0])


def _line(data: bytes, at: int, stop: int, final: bool, quote: bytes) -> int | None:
    """Do the same if a string begins at `at`: it has to be a line of key material, and not the name of a member."""
    if data.startswith(_END, at, stop):
        return at
    if not final and _END.startswith(data[at:stop]):
        return None
    line = _LINE.match(data, at, stop)
    end = line.end() if line else at
    if end - at > _LONGEST:
        return at
    if line and data.startswith(quote, end, stop):
        colon = _COLON.match(data, end + len(quote), stop)
        if colon is None:
            return at
        is_end = colon.end() == stop and data[stop - 1] != ord(":")
        return (at if final else None) if is_end else 0
    rest = data[end:stop]
    if final:
        return at if not rest and line else 0
    return None if quote.startswith(rest) or _UNDECIDED.fullmatch(rest) else 0
