"""Finds where a value ends in URL-encoded text, where a token whose alphabet has a `%` would run on into what follows.

    AbC1...%22%2C%20...    a value, then an encoded quote, comma and blank
    AbC1...+and+so+on      in forms a plus is a blank; a literal plus is written `%2B`

Rule of the file: only for judging a value. What is masked is the whole run.

Source: RFC 3986 section 2.1, WHATWG URL (application/x-www-form-urlencoded).
"""

import re
from typing import Final

_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_LETTER: Final = r"[C-Fc-f][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){1,3}"
_ENDS: Final = re.compile(rf"\+|%(?:0[9AaDd]|2[02789Cc]|3[BbCcEe]|5[B-Db-d]|60|7[BDbd]|{_LETTER})")
"""A blank, a quote, a comma, a bracket, a letter outside ASCII. Half a letter may belong to a password: `p%e9T2`."""
_DIGIT: Final = "(?:[A-Za-z0-9+/]|%2[Ff])"
_BASE64: Final = re.compile(f"(?:{_DIGIT}{{4}}){{5,}}{_DIGIT}{{2}}(?:{_DIGIT}%3[Dd]|%3[Dd]%3[Dd])(?![A-Za-z0-9])")
"""Some write `%3D` for a padding, but no `%2B` for a plus."""
_OPENS: Final = re.compile(f"(?:{_ENDS.pattern})*")


def value(run: str) -> str:
    """Return the value in a run, without the blanks and quotes before it and what follows it."""
    if "%" not in run or _ESCAPE.search(run) is None:
        return run
    opens = _OPENS.match(run)
    begin = opens.end() if opens else 0
    if (base64 := _BASE64.match(run, begin)) is not None:
        return base64[0]
    end = _ENDS.search(run, begin)
    return run[begin : end.start() if end else None]


def last_part(run: str) -> str:
    """Return what follows the last end of a value in a run."""
    return _ENDS.split(run)[-1] if "%" in run else run
