"""Texts that are encoded in base64 within a text: runs of 40 characters and more, and lines of them.

    GITHUB_TOKEN: Z2hwXzFIZ...          one run: a value of a Kubernetes secret, a part of a token, a data URL
    U1RBR0U9cHJvZHVjdGlvbg...           lines of one length and a shorter last one: `base64 .env`, MIME; also as they
    R0lUSFVCX1RPS0VOPWdocF...           stand in JSON within the text, with `\\n` between them
    RwBJAFQASABVAEIA...                 UTF-16: `powershell -EncodedCommand`

Rule of the file: what does not begin like text is not decoded (`openai.binary`).
Source: RFC 4648, RFC 2045 section 6.8.
"""

import binascii
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from proxy.event_loop.fair_threads import give_way
from proxy.openai.binary import encodes_text
from proxy.policy import base64_runs

_CHARACTER: Final = "[A-Za-z0-9+/_-]"
_BEGIN: Final = re.compile(rf"(?<!{_CHARACTER})(?:(?<=\\)[nrt])?({_CHARACTER}{{{base64_runs.SHORTEST}}})")
"""Where a run begins, behind an escape if there is one; without the look behind, every word is read once for each of
its letters."""
_BREAK: Final = re.compile(r"\\r\\n[ \t]*|\\n[ \t]*|\r\n[ \t]*|\n[ \t]*")
"""Each alternative begins with a character of its own, so that the engine skips all others."""
_RUNS: Final = re.compile(
    rf"{_CHARACTER}{{{base64_runs.SHORTEST},}}+(?:(?:{_BREAK.pattern}){_CHARACTER}{{{base64_runs.SHORTEST},}}+)*+"
    rf"(?:(?:{_BREAK.pattern}){_CHARACTER}++)?"
)
_PIECE: Final = 1 << 18
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


class Encoded(NamedTuple):
    """A part of a text in base64, and what it says."""

    start: int
    end: int
    text: str


class _Line(NamedTuple):
    start: int
    end: int
    run: str


def encoded(text: str, most: int) -> Iterator[Encoded]:
    """Yield what is encoded in a text, in order. `most`: characters of it that are decoded, of all together; what goes
    beyond them is the last, and mostly ends early."""
    for runs in _runs(text, most):
        for lines in _together(runs):
            if (found := _decoded(lines, most)) is not None:
                most -= found.end - found.start
                yield found
            if most < 0:
                return


def _runs(text: str, most: int) -> Iterator[re.Match[str]]:
    """Yield the runs of a text, with the lines that follow; piece by piece, as each search keeps the interpreter.

    `most`: so many characters of each, and some more.
    """
    at = 0
    while at < len(text):
        give_way()
        begin = _BEGIN.search(text, at, at + _PIECE)
        found = None if begin is None else _RUNS.match(text, begin.start(1), begin.end() + most)
        if found is None:
            at += _PIECE - base64_runs.SHORTEST + 1  # where one may begin that the piece has cut
        else:
            yield found
            at = found.end()


def _together(runs: re.Match[str]) -> Iterator[list[_Line]]:
    """Yield lines that encode one text each."""
    lines: list[_Line] = []
    for line in _lines(runs):
        if lines and not _continues(lines, line):
            yield lines
            lines = []
        lines.append(line)
    yield lines


def _lines(runs: re.Match[str]) -> Iterator[_Line]:
    text, at = runs.string, runs.start()
    for broken in _BREAK.finditer(text, runs.start(), runs.end()):
        yield _Line(at, broken.start(), text[at : broken.start()])
        at = broken.end()
    yield _Line(at, runs.end(), text[at : runs.end()])


def _continues(lines: list[_Line], line: _Line) -> bool:
    """Tell whether a line goes on with what the lines before it encode: these are of one length, and whole."""
    size = len(lines[0].run)
    return size % 4 == 0 and len(lines[-1].run) == size and len(line.run) <= size


def _decoded(lines: list[_Line], most: int) -> Encoded | None:
    """Return what lines encode, up to `most` characters of them; `None` if that is no text."""
    run = "".join([line.run for line in lines]).encode()
    if len(run) < base64_runs.SHORTEST or not encodes_text(run):
        return None
    run = run[: max(most, 0)]
    whole = run[: len(run) - (len(run) % 4 == 1)]
    data = binascii.a2b_base64(whole.translate(_URL_SAFE) + b"=" * (-len(whole) % 4))
    is_utf16 = not any(data[1:30:2])
    text = data.decode("utf-16-le" if is_utf16 else "utf-8", "replace")
    return Encoded(lines[0].start, lines[-1].end, text)
