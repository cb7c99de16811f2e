"""Validation of a rule as written in a file: one table, key -> check of its value.

Rule of the file: a problem names the key, says what is wrong and what to write instead. All problems of a rule are
reported at once.

Source: https://github.com/google/re2/wiki/Syntax
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from proxy.config.names import did_you_mean, nearest, shown
from proxy.nouns.findings import Category, Severity
from proxy.policy import boundaries, patterns, prefixes, validators

_NEEDED: Final = ("id", "category", "severity", "pattern")
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UNKNOWN_PART: Final = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")
_MOST_LENGTH: Final = 65536
_MOST_WIDTH: Final = 16384
"""The most bytes that a match may take, as a stream has to keep them."""


def problems(entry: Mapping[Any, Any]) -> Iterator[str]:
    """Yield every problem of one rule."""
    for key in entry:
        if key not in KEYS:
            yield f"unknown key {shown(str(key))}{did_you_mean(nearest(str(key), KEYS))}"
    for key in _NEEDED:
        if entry.get(key) in (None, ""):
            yield f"`{key}` is missing"
    for key, check in KEYS.items():
        if key in entry and entry[key] not in (None, "") and (wrong := check(entry[key])):
            yield f"`{key}` {wrong}"
    if entry.get("not_named") and "(?P<name>" not in str(entry.get("pattern")):
        yield "`not_named` needs a group (?P<name>...) in the pattern: what the value is called"
    if (entry.get("exact") is True or entry.get("until")) and not entry.get("alphabet"):
        yield "`exact` and `until` need an `alphabet`: the characters of the token"


def _id(value: object) -> str | None:
    wanted = isinstance(value, str) and _ID.fullmatch(value)
    return None if wanted else "must be small letters, digits, - and _, at most 64"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _length(value: object) -> str | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_LENGTH
    return None if fits else f"must be a number between 1 and {_MOST_LENGTH}"


def _texts(value: object) -> str | None:
    wanted = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return None if wanted else "must be a list of texts"


def _one_of(choices: Sequence[str]) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        return (
            None
            if value in choices
            else f"must be one of {', '.join(choices)}{did_you_mean(nearest(str(value), choices))}"
        )

    return check


def _some_of(choices: Sequence[str]) -> Callable[[object], str | None]:
    check_one = _one_of(choices)

    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return "must be a list of names"
        return next((wrong for item in value if (wrong := check_one(item))), None)

    return check


def _alphabet(value: object) -> str | None:
    return patterns.wrong_alphabet(value) if isinstance(value, str) else "must be a class, such as [A-Za-z0-9_-]"


def _expression(value: object) -> str | None:
    if not isinstance(value, str):
        return "must be a pattern"
    if unknown := _UNKNOWN_PART.search(value):
        return f"names a part that is not there: {unknown[1]}; parts stand at the head of the file"
    return patterns.wrong_pattern(value)


def _expressions(value: object) -> str | None:
    if not isinstance(value, list):
        return "must be a list of patterns"
    return next((wrong for item in value if (wrong := _expression(item))), None)


def _pattern(value: object) -> str | None:
    """A pattern is also run on partial text: its prefixes and its maximum width must be known."""
    if wrong := _expression(value):
        return wrong
    bounded = patterns.bounded(str(value))
    try:
        width = prefixes.width(prefixes.parse(bounded))[1]
    except prefixes.UnsupportedPattern as error:
        return f"cannot be followed in a stream: {error}"
    if width is None or width > _MOST_WIDTH:
        return f"may take more than {_MOST_WIDTH} bytes in one match; give its repeats upper bounds, such as {{0,80}}"
    return patterns.wrong_pattern(bounded)


_VALIDATORS: Final = tuple(validators.VALIDATORS)
KEYS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "id": _id,
    "category": _one_of(get_args(Category)),
    "severity": _one_of(get_args(Severity)),
    "pattern": _pattern,
    "gate": _expression,
    "alphabet": _alphabet,
    "exact": _flag,
    "until": _expression,
    "max_length": _length,
    "boundary": _one_of(tuple(boundaries.BOUNDARIES)),
    "validators": _some_of(_VALIDATORS),
    "checksum": _one_of(_VALIDATORS),
    "placeholders": _flag,
    "allow": _expressions,
    "not_named": _expressions,
    "match": _texts,
    "no_match": _texts,
}
"""Every key of a rule, and the function that returns what is wrong with a value."""
