"""Patterns in a configuration: RE2 syntax only, so that none can take more than linear time."""

import re
from typing import Annotated, Final

import re2
from pydantic import AfterValidator, StringConstraints

_LOOK_AROUND: Final = re.compile(r"\(\?(?:[=!]|<[=!])")
_MEMORY: Final = 2 << 20
"""Bounds the size of a pattern, and so the 50 ms that RE2 takes to compile it, during which no other thread runs."""
_BACK_REFERENCE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9]")


def wrong_pattern(pattern: str) -> str | None:
    """Return why RE2 does not take `pattern`, or nothing. It is not quoted."""
    if _LOOK_AROUND.search(pattern):
        return "uses a look-around assertion, which no linear-time engine has"
    if _BACK_REFERENCE.search(pattern):
        return "uses a back-reference, which no linear-time engine has"
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        if "too large" in _reason(error):
            return "is too large for RE2: lower the upper bounds of its repeats"
        return f"is not an RE2 pattern{_reason(error)}"
    return "matches the empty text" if compiled.fullmatch("") else None


def _checked(pattern: str) -> str:
    if (wrong := wrong_pattern(pattern)) is not None:
        raise ValueError(wrong)
    return pattern


Expression = Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_checked)]


def _reason(error: Exception) -> str:
    """Return what RE2 says, without the part of the pattern that it quotes."""
    said = error.args[0] if error.args else b""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else ""
    return f": {text.partition(':')[0]}" if text else ""
