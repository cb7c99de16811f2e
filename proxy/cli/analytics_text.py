"""Answers of analytics as text for a terminal: a heading and aligned tables.

Rule of the file: pure. Amounts of money stay decimal; names, which clients choose, pass through `shown`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from proxy.config.names import shown

Row = tuple[str, ...]


def _usage(answer: Mapping[str, Any]) -> Iterator[str]:
    tokens, parts = answer["totalTokens"], answer["breakdown"]
    yield _range(answer)
    yield (
        f"{answer['totalRequests']} requests, {tokens['input']} input and {tokens['output']} output tokens, "
        f"${answer['totalCost']:f}"
    )
    heading = ("REQUESTS", "TOKENS", "COST $", "AVG MS")
    for title, rows in (
        ("DAY", [(row["date"], row["requests"], row["tokens"], row) for row in parts["byDay"]]),
        ("LAYER", [(name, row["requests"], row["tokens"], row) for name, row in parts["byLayer"].items()]),
        ("MODEL", [(name, row["requests"], row["tokens"]["total"], row) for name, row in parts["byModel"].items()]),
    ):
        yield ""
        yield from _table(
            (title, *heading),
            [
                (shown(name), str(requests), str(total), f"{row['cost']:.6f}", f"{row['avgDurationMs']:.0f}")
                for name, requests, total, row in rows
            ],
        )


def _errors(answer: Mapping[str, Any]) -> Iterator[str]:
    yield _range(answer)
    yield (
        f"{answer['errors']} of {answer['totalRequests']} requests failed ({_percent(answer['errorRate'])}); "
        f"{answer['rejected']} of these were refused, the client aborted {answer['aborted']} others"
    )
    yield ""
    rows = [
        (shown(name), str(row["calls"]), str(row["errors"]), _percent(row["errorRate"]))
        for name, row in answer["byModel"].items()
    ]
    yield from _table(("MODEL", "CALLS", "FAILED", "RATE"), rows)


def _latency(answer: Mapping[str, Any]) -> Iterator[str]:
    yield _range(answer)
    named = [("requests", answer), *answer["byModel"].items()]
    rows = [
        (
            shown(name),
            *(_ms(found[member][rank]) for member in ("durationMs", "firstByteMs") for rank in ("p50", "p95")),
        )
        for name, found in named
    ]
    yield from _table(("", "P50 MS", "P95 MS", "FIRST P50", "FIRST P95"), rows)


def _expensive(answer: Mapping[str, Any]) -> Iterator[str]:
    yield _range(answer)
    rows = [
        (
            row["traceId"],
            f"{row['cost']:.6f}",
            str(row["tokens"]["total"]),
            str(row["calls"]),
            shown(row["userId"] or "-"),
            shown(row["model"] or "-"),
        )
        for row in answer["requests"]
    ]
    yield from _table(("TRACE", "COST $", "TOKENS", "CALLS", "USER", "MODEL"), rows)


def _shares(answer: Mapping[str, Any]) -> Iterator[str]:
    member, title = ("userId", "USER") if "users" in answer else ("projectId", "PROJECT")
    yield _range(answer)
    rows = [
        (
            shown(row[member] or "-"),
            str(row["requests"]),
            str(row["errors"]),
            str(row["tokens"]["total"]),
            f"{row['cost']:.6f}",
        )
        for row in answer.get("users", answer.get("projects"))
    ]
    yield from _table((title, "REQUESTS", "ERRORS", "TOKENS", "COST $"), rows)


TABLES: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = {
    "usage": _usage,
    "errors": _errors,
    "latency": _latency,
    "expensive": _expensive,
    "users": _shares,
    "projects": _shares,
}
"""The lines of an answer, by question."""


def checked(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each project whose sums of one day were compared with its traces."""
    for row in found["projects"]:
        kept, counted = row["kept"], row["counted"]
        state = f"{row['differences']} sums differ" if row["differences"] else "right"
        yield (
            f"{found['day']}  {shown(row['projectId'] or '-'):24} {state}; requests {kept['requests']} of "
            f"{counted['requests']}, tokens {kept['tokens']} of {counted['tokens']}, "
            f"${kept['cost']:f} of ${counted['cost']:f}"
        )


def _table(heading: Row, rows: Sequence[Row]) -> Iterator[str]:
    """Yield aligned lines: the first column to the left, the others to the right."""
    widths = [min(max(len(line[at]) for line in (heading, *rows)), 40) for at in range(len(heading))]
    for line in (heading, *rows):
        first, *others = line
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield f"{first[: widths[0]]:<{widths[0]}}  {'  '.join(cells)}".rstrip()


def _range(answer: Mapping[str, Any]) -> str:
    return f"from {answer['timeRange']['start']} to {answer['timeRange']['end']}"


def _percent(rate: Decimal | float) -> str:
    return f"{100 * rate:.2f}%"


def _ms(value: Decimal | float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
