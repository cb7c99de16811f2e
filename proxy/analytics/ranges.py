"""Resolves the range of a query: defaults, and calendar days in the project's time zone."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from proxy.analytics.figures import PERIODS, Edge, Question, TimeRange
from proxy.db.transaction import Connection
from proxy.errors import InvalidRequest

_DAY: Final = timedelta(days=1)
_QUARTER: Final = timedelta(minutes=15)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# $1 project, $2 and $3 the start as a day or a moment, $4 and $5 the end, $6 period, $7 number of periods.
_RANGE: Final = """
WITH edge AS (
    SELECT zone, coalesce($5, ($4::date + 1)::timestamp AT TIME ZONE zone,
        ((now() AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone) AS until
    FROM sidegate_zone($1) AS zone
)
SELECT coalesce($3, $2::date::timestamp AT TIME ZONE zone,
    (date_trunc($6, (until - interval '1 microsecond') AT TIME ZONE zone) - ($7 - 1) * ('1 ' || $6)::interval)
        AT TIME ZONE zone) AS since, until
FROM edge
"""

# A time inside a day is replaced by that day.
_DAYS: Final = """
SELECT (($1::timestamptz AT TIME ZONE zone)::date) AS first,
    (($2::timestamptz - interval '1 microsecond') AT TIME ZONE zone)::date + 1 AS past,
    (($1::timestamptz AT TIME ZONE zone)::date)::timestamp AT TIME ZONE zone AS since,
    ((($2::timestamptz - interval '1 microsecond') AT TIME ZONE zone)::date + 1)::timestamp AT TIME ZONE zone AS until
FROM sidegate_zone($3) AS zone
"""


@dataclass(frozen=True, slots=True)
class Days:
    """The whole days of a range: `past` is the first one after it."""

    first: date
    past: date
    time_range: TimeRange


@dataclass(frozen=True, slots=True)
class Piece:
    """A part that a rounded edge excluded (`sign` 1) or included in excess (-1)."""

    sign: int
    since: datetime
    until: datetime


async def resolve(connection: Connection, question: Question) -> tuple[Question, TimeRange]:
    """Fill in the defaults of a query. Without a project, the returned range is in UTC.

    Raises:
        InvalidRequest: the range ends before it begins, which only the defaults and the project's time zone tell.
    """
    row = await connection.fetchrow(
        _RANGE, question.project_id, *split(question.since), *split(question.until), question.period, PERIODS
    )
    assert row is not None
    since, until = row["since"], row["until"]
    if since > until:
        raise _backwards(question)
    if question.project_id is None:  # each project has its own days
        return (
            replace(question, since=question.since or since.date(), until=question.until or until.date() - _DAY),
            TimeRange(since, until),
        )
    return replace(question, since=since, until=until), TimeRange(since, until)


def _backwards(question: Question) -> InvalidRequest:
    if question.until is None:
        message = "`startDate` is in the future: without `endDate` the range ends with today."
        return InvalidRequest(message, code="invalid_parameter", param="startDate")
    return InvalidRequest("`endDate` must be after `startDate`.", code="invalid_parameter", param="endDate")


async def whole_days(connection: Connection, question: Question) -> Days:
    """Return the whole days that a query touches; a time inside a day is replaced by that day. Raises as `resolve`."""
    _, time_range = await resolve(connection, question)
    row = await connection.fetchrow(_DAYS, time_range.start, time_range.end, question.project_id)
    assert row is not None
    return Days(row["first"], row["past"], TimeRange(row["since"], row["until"]))


def split(edge: Edge | None) -> tuple[date | None, datetime | None]:
    """Return an edge as two parameters: a day or a time."""
    return (None, edge) if isinstance(edge, datetime) else (edge, None)


def to_quarters(since: Edge, until: Edge, now: datetime) -> tuple[Edge, Edge, list[Piece]]:
    """Round times to the nearest quarter of an hour; return also the pieces that compensate for that, up to two.

    `now`: the future has no data and counts as no distance, so a range that ends now includes the current quarter.
    """
    first, last = _nearest(since, now), _nearest(until, now)
    pieces = [_piece(since, first), _piece(last, until)]
    return first, last, [piece for piece in pieces if piece is not None]


def _nearest(edge: Edge, now: datetime) -> Edge:
    if not isinstance(edge, datetime):
        return edge
    before = edge - (edge - _EPOCH) % _QUARTER
    return before + _QUARTER if min(before + _QUARTER, now) - edge < edge - before else before


def _piece(since: Edge, until: Edge) -> Piece | None:
    if not isinstance(since, datetime) or not isinstance(until, datetime) or since == until:
        return None
    return Piece(1, since, until) if since < until else Piece(-1, until, since)
