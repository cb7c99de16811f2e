"""Answers as CSV or JSON Lines (`format=csv|jsonl`), for spreadsheets and pipelines.

Rows are built and sent page by page, so an export of millions of traces needs the memory of one page. CSV follows
RFC 4180 (header row, CRLF, quoting). Clients choose names, so a text that a spreadsheet would run as a formula gets a
leading apostrophe. Amounts keep all their digits.

Failure mode: an error before the first page is an ordinary error response; after that the connection is closed without
the end of the body, so that a truncated export cannot be mistaken for a complete one.

Source: RFC 4180; OWASP, "CSV Injection"; jsonlines.org.
"""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from aiohttp import web

from proxy.api.bodies import json_answer
from proxy.api.parameters import one_of

FORMAT: Final = {"format": one_of(("json", "csv", "jsonl"))}
_CONTENT_TYPES: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}")
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

Row = Mapping[str, Any]


def answer(values: Mapping[str, Any], document: Mapping[str, Any]) -> web.Response:
    """Return a document in the format asked for: as JSON, or as the rows of its tables."""
    wanted = values.get("format", "json")
    if wanted == "json":
        return json_answer(document)
    rows = list(as_rows(document))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return web.Response(
        body=encoded(rows, columns, wanted, heading=True),
        headers={**_HEADERS, "Content-Type": _CONTENT_TYPES[wanted]},
    )


def streamed(pages: AsyncIterator[Iterable[Row]], columns: Sequence[str], wanted: str) -> web.Response:
    """Return a response whose body is built page by page while it is sent. `wanted`: `csv` or `jsonl`."""

    async def pieces() -> AsyncIterator[bytes]:
        heading = True
        async for rows in pages:
            if piece := encoded(rows, columns, wanted, heading=heading):
                yield piece
            heading = False

    return web.Response(body=pieces(), headers={**_HEADERS, "Content-Type": _CONTENT_TYPES[wanted]})


def encoded(rows: Iterable[Row], columns: Sequence[str], wanted: str, *, heading: bool) -> bytes:
    """Return rows as bytes. `columns` applies to CSV only; JSON Lines contain every member of each row."""
    if wanted == "jsonl":
        return b"".join(orjson.dumps(row, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for row in rows)
    text = io.StringIO()
    writer = csv.writer(text)
    if heading:
        writer.writerow(columns)
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode()


def cell(value: Any) -> str:
    """Return a value as a CSV cell that no spreadsheet evaluates."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def as_rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a document: its own figures as the part `total`, then each of its tables.

    A table is a list of objects, or an object of objects, whose names become the column `name`. A list inside a row
    becomes one row per entry. Nested figures become columns: `tokens.input` is `tokensInput`.
    """
    figures = {name: value for name, value in document.items() if not _is_table(value)}
    figures.pop("breakdown", None)
    if figures.keys() - {"timeRange"}:
        yield {"part": "total", **_flat(figures)}
    tables = {**document, **document.get("breakdown", {})}
    for part, table in tables.items():
        if part != "breakdown" and _is_table(table):
            for row in _rows(table):
                yield {"part": part, **row}


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    named = [{"name": name, **row} for name, row in table.items()] if isinstance(table, Mapping) else table
    for row in named:
        inner = next((value for value in row.values() if isinstance(value, list)), None)
        outer = {name: value for name, value in row.items() if not isinstance(value, list)}
        for one in [{}] if inner is None else inner:
            yield _flat({**outer, **one})


def _is_table(value: Any) -> bool:
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return entries is not None and all(isinstance(entry, Mapping) for entry in entries)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat.update((name + inner[0].upper() + inner[1:], one) for inner, one in value.items())
        else:
            flat[name] = value
    return flat
