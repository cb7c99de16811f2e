"""`sidegate traces`: show one trace, list or follow the latest, or export them, over the API of a running proxy.

`tail --follow` polls the last minutes every second and prints what is new: a trace appears when its request has ended,
which may be long after requests that started later.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from shutil import get_terminal_size
from types import MappingProxyType
from typing import Any, Final, NoReturn

from proxy.cli.api_client import ApiClient, connect, document_of, exact_document, json_text, printable_json, segment
from proxy.cli.export import add_export, export
from proxy.cli.failure import Exit
from proxy.cli.options import add_address, moment, settings, whole_number
from proxy.cli.trace_text import WIDTH, heading, outline, row

_ENDING: Final = """\
examples:
  sidegate traces tail --follow --outcome timeout
  sidegate traces tail --since 15m --project shop --json
  sidegate traces export --since 30d --project shop --output shop.csv
  sidegate traces get 0192f0c1-7e3a-7cc4-a1b2-5d0c6f3e9a41

The id of a trace is in the header x-sidegate-trace-id of every response."""

_FILTERS: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "--project": ("projectId", "ID", "of this project"),
        "--user": ("userId", "ID", "of this user"),
        "--conversation": ("conversationId", "ID", "of this conversation"),
        "--model": ("model", "NAME", "requests for this model"),
        "--type": ("requestType", "TYPE", "of this kind: chat, responses, embeddings ..."),
        "--outcome": ("outcome", "NAME", "with this outcome: ok, timeout, client_abort ..."),
        "--status": ("status", "CODE", "answered with this HTTP status"),
        "--min-cost": ("minCost", "DOLLARS", "cost at least this much"),
        "--since": ("from", "TIME", "started since: ISO 8601, or an age like 90s, 15m, 2h, 7d"),
        "--until": ("to", "TIME", "started before; same forms"),
    }
)
_PAGE: Final = 500
_FOLLOW_PERIOD_S: Final = 1.0
_FOLLOW_WINDOW: Final = timedelta(minutes=5)
_FOLLOW_PAGES: Final = 4
Trace = dict[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Show, follow and export traces.", _ENDING
    actions = parser.add_subparsers(metavar="get|tail|export", required=True)
    get = actions.add_parser("get", help="show one trace", description="Show one trace.", allow_abbrev=False)
    get.add_argument("id", metavar="ID", help="trace id")
    get.set_defaults(run=_get)
    tail = actions.add_parser("tail", help="list the latest traces", description="List traces.", allow_abbrev=False)
    tail.add_argument("--follow", "-f", action="store_true", help="keep printing new ones until Ctrl-C")
    tail.add_argument(
        "--limit", "-n", metavar="N", type=whole_number(1, 100_000), default=20, help="how many (default: 20)"
    )
    for flag, (name, metavar, text) in _FILTERS.items():
        tail.add_argument(flag, dest=name, metavar=metavar, type=moment if metavar == "TIME" else str, help=text)
    tail.set_defaults(run=_tail)
    whole = actions.add_parser(
        "export",
        help="write all matching traces to a file",
        description="Write all matching traces.",
        allow_abbrev=False,
    )
    for flag, (name, metavar, text) in _FILTERS.items():
        whole.add_argument(flag, dest=name, metavar=metavar, type=moment if metavar == "TIME" else str, help=text)
    add_export(whole)
    whole.set_defaults(run=_export)
    add_address(whole)
    for action in (get, tail):
        action.add_argument("--json", action="store_true", help="print JSON, one document per line")
        add_address(action)


def _get(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    body = client.get(f"/v1/traces/{segment(arguments.id)}")
    trace = document_of(body)
    print(printable_json(body) if arguments.json else "\n".join(outline(trace)))
    return Exit.OK


def _export(arguments: argparse.Namespace) -> int:
    export(connect(arguments.url, settings(arguments)), "/v1/traces", _chosen(arguments), arguments)
    return Exit.OK


def _chosen(arguments: argparse.Namespace) -> dict[str, str]:
    return {name: value for name, _, _ in _FILTERS.values() if (value := getattr(arguments, name)) is not None}


def _tail(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    filters = _chosen(arguments)
    known = {trace["id"] for trace in _recent(client, filters)} if arguments.follow else set()
    traces = list(_search(client, filters, arguments.limit))
    if not arguments.json:
        print(heading())
    _show(reversed(traces), arguments.json)
    if arguments.follow:
        _follow(client, filters, known | {trace["id"] for trace in traces}, arguments.json)
    return Exit.OK


def _search(client: ApiClient, filters: Mapping[str, str], limit: int) -> Iterator[Trace]:
    """Yield up to `limit` traces, newest first, page by page."""
    cursor: str | None = None
    while limit > 0:
        asked = {**filters, "limit": str(min(limit, _PAGE)), **({"cursor": cursor} if cursor else {})}
        page = exact_document(client.get("/v1/traces", asked))
        yield from page["traces"]
        limit -= len(page["traces"])
        cursor = page["nextCursor"]
        if cursor is None or not page["traces"]:
            return


def _recent(client: ApiClient, filters: Mapping[str, str]) -> list[Trace]:
    """Return the traces of the last minutes, newest first, at most a few pages."""
    since = (datetime.now(UTC) - _FOLLOW_WINDOW).isoformat()
    window = {**filters, "from": max(since, filters.get("from", ""))}
    return list(_search(client, window, _FOLLOW_PAGES * _PAGE))


def _follow(client: ApiClient, filters: Mapping[str, str], known: set[str], as_json: bool) -> NoReturn:
    """Print new traces forever. `known`: ids of traces already shown, or too old to be."""
    while True:
        time.sleep(_FOLLOW_PERIOD_S)
        found = _recent(client, filters)
        _show((trace for trace in reversed(found) if trace["id"] not in known), as_json)
        known = {trace["id"] for trace in found}


def _show(traces: Iterator[Trace], as_json: bool) -> None:
    width = get_terminal_size((WIDTH, 24)).columns
    for trace in traces:
        print(json_text(trace) if as_json else row(trace, width))
    sys.stdout.flush()
