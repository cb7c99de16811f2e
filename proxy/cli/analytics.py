"""`sidegate analytics`: who spent what, where and why, and rebuilding the sums, over the API of a running proxy.

`analytics_text` has the tables. `rebuild` works day by day, so that it can be watched, interrupted and resumed.
"""

import argparse
import sys
from datetime import date, timedelta
from typing import Final

from proxy.cli import analytics_text
from proxy.cli.api_client import ApiClient, connect, exact_document, printable_json
from proxy.cli.export import add_export, export
from proxy.cli.failure import CommandFailed, Exit
from proxy.cli.options import add_address, add_api, moment, settings

_ENDING: Final = """\
examples:
  sidegate analytics usage --project shop --since 2026-11-01 --group-by week
  sidegate analytics users --project shop
  sidegate analytics errors --project shop
  sidegate analytics export series --by layer --output layers.csv
  sidegate analytics rebuild --since 2026-11-01 --until 2026-11-07 --check

Days are those of the project's time zone. Without dates the last 30 days, weeks or months are shown."""

_QUESTIONS: Final = {
    "usage": ("/v1/analytics", "requests, tokens and cost by layer, model and period"),
    "errors": ("/v1/analytics/error-rate", "how many requests failed, and how many calls of each model"),
    "latency": ("/v1/analytics/latency", "percentiles of the duration and of the time to the first byte"),
    "expensive": ("/v1/analytics/top-expensive", "the most expensive requests"),
    "users": ("/v1/analytics/users", "the users who spent the most"),
    "projects": ("/v1/analytics/projects", "the projects that spent the most"),
}
_EXPORTED: Final = {
    **{name: path for name, (path, _) in _QUESTIONS.items()},
    "series": "/v1/analytics/series",
    "policy": "/v1/analytics/policy",
    "cache": "/v1/analytics/cache",
}
"""What can be written to a file: table of the answer -> path."""
_OPTIONS: Final = {
    "--project": ("projectId", "ID", "of this project", frozenset(_QUESTIONS)),
    "--user": ("userId", "ID", "of this user", frozenset({"usage", "errors", "latency", "expensive"})),
    "--model": ("model", "NAME", "calls of this model", frozenset({"usage", "errors", "expensive"})),
    "--layer": ("layer", "NAME", "calls of this layer", frozenset({"usage", "errors"})),
    "--type": ("requestType", "TYPE", "of this kind: chat, responses, embeddings ...", frozenset(_QUESTIONS)),
    "--since": (
        "startDate",
        "TIME",
        "from this day, this moment in ISO 8601, or an age like 2h, 7d",
        frozenset(_QUESTIONS),
    ),
    "--until": (
        "endDate",
        "TIME",
        "up to and including this day, or before this moment; same forms",
        frozenset(_QUESTIONS),
    ),
    "--group-by": ("groupBy", "PERIOD", "day, week or month", frozenset({"usage", "errors"})),
    "--limit": ("limit", "N", "how many", frozenset({"expensive", "users", "projects"})),
}
_LOOK_BACK: Final = timedelta(days=7)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Show who spent what, where and why.", _ENDING
    actions = parser.add_subparsers(metavar="|".join((*_QUESTIONS, "export", "rebuild")), required=True)
    for name, (path, text) in _QUESTIONS.items():
        action = actions.add_parser(name, help=text, description=f"Show {text}.", allow_abbrev=False)
        _add_options(action, name)
        action.set_defaults(run=_ask, question=name, path=path)
        add_api(action)
    written = actions.add_parser(
        "export",
        help="write an answer to a file",
        description=f"Write the tables of one answer: {', '.join(_EXPORTED)}.",
        allow_abbrev=False,
    )
    written.add_argument("question", metavar="QUESTION", choices=_EXPORTED, help="which of them")
    _add_options(written, None)
    written.add_argument("--by", metavar="PART", help="series: by model or layer")
    add_export(written)
    written.set_defaults(run=_export)
    add_address(written)
    rebuild = actions.add_parser(
        "rebuild",
        help="recompute the sums of days from their traces",
        description="Recompute the sums of days from their traces, and show what was different. With --check, exit\n"
        "code 1 says that something differs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    rebuild.add_argument("--since", metavar="DAY", type=_day, help="first day (default: a week ago)")
    rebuild.add_argument("--until", metavar="DAY", type=_day, help="last day (default: today)")
    rebuild.add_argument("--project", metavar="ID", help="only this project")
    rebuild.add_argument("--check", action="store_true", help="compare only, change nothing")
    rebuild.set_defaults(run=_rebuild)
    add_api(rebuild)


def _add_options(action: argparse.ArgumentParser, question: str | None) -> None:
    """Add the options that a question has, or all of them."""
    for flag, (member, metavar, meaning, where) in _OPTIONS.items():
        if question is None or question in where:
            kind = _time if metavar == "TIME" else str
            choices = ("day", "week", "month") if metavar == "PERIOD" else None
            action.add_argument(flag, dest=member, metavar=metavar, type=kind, choices=choices, help=meaning)


def _ask(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    body = client.get(arguments.path, _given(arguments))
    answer = exact_document(body)
    print(printable_json(body) if arguments.json else "\n".join(analytics_text.TABLES[arguments.question](answer)))
    return Exit.OK


def _export(arguments: argparse.Namespace) -> int:
    by = {} if arguments.by is None else {"by": arguments.by}
    client = connect(arguments.url, settings(arguments))
    export(client, _EXPORTED[arguments.question], {**_given(arguments), **by}, arguments)
    return Exit.OK


def _given(arguments: argparse.Namespace) -> dict[str, str]:
    members = {member for member, *_ in _OPTIONS.values()}
    return {name: value for name, value in vars(arguments).items() if name in members and value is not None}


def _rebuild(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    until: date = arguments.until or date.today()
    since: date = arguments.since or until - _LOOK_BACK
    if since > until:
        raise CommandFailed("--until must not be before --since")
    days = [since + timedelta(days=number) for number in range((until - since).days + 1)]
    differing = 0
    for number, day in enumerate(days, 1):
        _progress(f"{day}  ({number} of {len(days)})")
        body = _one_day(client, day, arguments)
        found = exact_document(body)
        differing += sum(row["differences"] for row in found["projects"])
        _progress("")
        if arguments.json:
            print(printable_json(body))
        else:
            print("\n".join(analytics_text.checked(found)) or f"{day}  no traces")
    if not arguments.json:
        verb = "differ" if arguments.check else "differed and were recomputed"
        print(f"{differing} sums {verb}" if differing else "every sum matches its traces")
    return Exit.FAILED if arguments.check and differing else Exit.OK


def _one_day(client: ApiClient, day: date, arguments: argparse.Namespace) -> bytes:
    parameters = {"day": day.isoformat(), **({} if arguments.project is None else {"projectId": arguments.project})}
    if arguments.check:
        return client.get("/v1/analytics/check", parameters)
    return client.post("/v1/analytics/rebuild", parameters=parameters)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<40}\r", end="", file=sys.stderr, flush=True)


def _time(text: str) -> str:
    """Return a day as it is, which the API reads in the project's time zone, and a moment or an age in UTC."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return moment(text)


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
        if day - date.min < _LOOK_BACK:  # the default of --since would be before all days
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError("must be a day such as 2026-11-23") from None
    return day
