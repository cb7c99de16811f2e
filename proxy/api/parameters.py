"""Query parameters of the management API: strict, so that a misspelt filter never returns everything.

A parameter is a name, a parser, and what is allowed (told in the error). Unknown, missing and repeated names and bad
values are all reported in one 400, up to 20; `param` names the first. Values never become SQL text: they are parsed
here and bound as query arguments in the stores.

Source: ISO 8601 / RFC 3339 (times); RFC 3986 section 3.4 (query).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any, Final, Literal
from urllib.parse import parse_qsl
from uuid import UUID

from aiohttp import web

from proxy.config.names import shown
from proxy.errors import InvalidRequest
from proxy.trace.record import created_at

_MAX_QUERY_FIELDS = 64
_MOST_TOLD: Final = 20
"""Mistakes that are told. To find what a misspelt name means takes a millisecond."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """`parse` raises ValueError for what is not allowed. `allowed` completes "must be ..."."""

    parse: Callable[[Any], Any]
    allowed: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    """The same as JSON Schema, as far as that can say it."""


def read_query(
    request: web.BaseRequest, known: Mapping[str, Parameter], required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the query parameters of a request as `read` does."""
    return read(request.raw_path.partition("?")[2], known, required)


def read(query: str, known: Mapping[str, Parameter], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the parsed values of a raw query string by name. Empty values count as absent.

    Raises:
        InvalidRequest: as `parsed`.
    """
    given = ((name, text) for name, text in _fields(query) if text or name not in known)
    return parsed(given, known, required, "parameter")


def parsed(
    given: Iterable[tuple[str, Any]],
    known: Mapping[str, Parameter],
    required: tuple[str, ...],
    noun: Literal["parameter", "member"],
) -> dict[str, Any]:
    """Return the values by name. `noun`: what a name is called in messages.

    Raises:
        InvalidRequest: the message names the mistakes and what would be allowed.
    """
    values: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for name, value in given:
        if len(mistakes) == _MOST_TOLD:
            break
        if name not in known:
            mistakes[name] = f"Unknown {noun} `{shown(name)}`{_suggestion(name, known)}"
        elif name in values:
            mistakes[name] = f"`{name}` is given twice."
        else:
            try:
                values[name] = known[name].parse(value)
            except ValueError:
                mistakes[name] = f"`{name}` must be {known[name].allowed}."
    else:
        absent = [name for name in required if name not in values and name not in mistakes]
        mistakes |= {name: f"`{name}` is missing." for name in absent}
    if mistakes:
        allowed = f"Known {noun}s: {', '.join(sorted(known))}." if known else f"There are no {noun}s here."
        raise invalid(next(iter(mistakes)), f"{' '.join(mistakes.values())} {allowed}")
    return values


def invalid(param: str, message: str) -> InvalidRequest:
    """Return the 400 about one parameter or member."""
    return InvalidRequest(message, code="invalid_parameter", param=shown(param))


def text(longest: int) -> Parameter:
    """Return a free-text parameter. NUL is refused, as PostgreSQL cannot store it."""

    def parse(value: str) -> str:
        value.encode()
        if len(value) > longest or "\0" in value:
            raise ValueError
        return value

    return Parameter(parse, f"at most {longest} characters of text", {"type": "string", "maxLength": longest})


def integer(lowest: int, highest: int) -> Parameter:
    """Return a parameter that is a whole number within bounds (inclusive)."""

    def parse(value: str) -> int:
        if not value.isascii() or not value.isdigit() or len(value) > 10 or not lowest <= int(value) <= highest:
            raise ValueError
        return int(value)

    return Parameter(parse, f"a whole number from {lowest} to {highest}", whole(lowest, highest))


def whole(lowest: int, highest: int) -> Mapping[str, Any]:
    """Return the schema of a whole number within bounds."""
    return {"type": "integer", "minimum": lowest, "maximum": highest}


def one_of(names: tuple[str, ...]) -> Parameter:
    """Return a parameter that is one of `names`."""

    def parse(value: str) -> str:
        if value not in names:
            raise ValueError
        return value

    return Parameter(parse, f"one of {', '.join(names)}", {"type": "string", "enum": list(names)})


def _time(value: str) -> datetime:
    # An unescaped "+" of a zone arrives as a space; a date alone means its midnight; without a zone it is UTC.
    moment = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        moment.astimezone(UTC)  # as PostgreSQL will be told
    except OverflowError:
        raise ValueError from None
    return moment


def _day(value: str) -> date:
    day = date.fromisoformat(value)
    if not 1970 < day.year < 9000:
        raise ValueError
    return day


def _edge(value: str) -> date | datetime:
    """Return a calendar day as a date, a moment as `_time` does; both in a range that every zone can represent."""
    if "T" not in value:
        return _day(value)
    moment = _time(value)
    if not 1970 < moment.year < 9000:
        raise ValueError
    return moment


def _amount(value: str) -> Decimal:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError from None
    if not amount.is_finite() or not 0 <= amount < 10**11 or len(value) > 32:
        raise ValueError
    return amount


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _trace_id(value: str) -> UUID:
    parsed = UUID(value)
    if parsed.version != 7:
        raise ValueError
    created_at(str(parsed))
    return parsed


_DAY_FORM = {"type": "string", "format": "date"}
_TIME_FORM = {"type": "string", "format": "date-time"}
TIME = Parameter(_time, "an ISO 8601 time such as 2026-11-23T07:00:00Z, or a date", {"anyOf": [_TIME_FORM, _DAY_FORM]})
DAY = Parameter(_day, "a day such as 2026-11-23", _DAY_FORM)
EDGE = Parameter(
    _edge,
    "a day such as 2026-11-23, or an ISO 8601 time such as 2026-11-23T07:00:00Z",
    {"anyOf": [_DAY_FORM, _TIME_FORM]},
)
FLAG = Parameter(_flag, "true or false", {"type": "boolean"})
AMOUNT = Parameter(_amount, "an amount of dollars such as 0.05", {"type": "number", "minimum": 0})
TRACE_ID = Parameter(
    _trace_id,
    "the id of a trace as `x-sidegate-trace-id` gave it (a UUID of version 7)",
    {"type": "string", "format": "uuid"},
)


def _fields(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise InvalidRequest(f"More than {_MAX_QUERY_FIELDS} query parameters.", code="invalid_parameter") from None


def _suggestion(name: str, known: Mapping[str, Parameter]) -> str:
    close = get_close_matches(shown(name), known, n=1)
    return f"; did you mean `{close[0]}`?" if close else "."
