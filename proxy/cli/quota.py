"""`sidegate quota`: show and change quotas, over the API of a running proxy.

Rule of the file: amounts of money stay decimal from the proxy's digits to the terminal. `--json` prints the answer of
the API unchanged, except that characters outside ASCII are escaped, so that no name can control a terminal.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from proxy.cli.api_client import ApiClient, connect, exact_document, printable_json
from proxy.cli.failure import Exit
from proxy.cli.options import add_api, add_project, project_of, settings
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate quota get --user alice
  sidegate quota set --user alice --project shop --max-tokens 2000000 --max-cost 12.50
  sidegate quota top --project shop --limit 5

Without --project, it is the project of requests that name none. A project that does not exist is
refused without --create-project; a user may be new, and is then named on standard error. Changed
limits take effect within seconds, also for running streams."""

_DOLLARS: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
_TOP_COLUMNS: Final = "{:24.24} {:20.20} {:>6} {:>15} {:>15} {:>13} {:>13}"
_ONE_COLUMNS: Final = "{:8} {:>20} {:>20} {:>20} {:>14} {:>14}"
_PARTS: Final = ("max{}Daily", "current{}Today", "remaining{}", "held{}", "burned{}")
Quota = Mapping[str, Any]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Show and change quotas.", _ENDING
    actions = parser.add_subparsers(metavar="get|set|top|reset", required=True)
    get = actions.add_parser("get", help="show one quota", description="Show one quota.", allow_abbrev=False)
    change = actions.add_parser("set", help="change limits", description="Change limits.", allow_abbrev=False)
    top = actions.add_parser(
        "top",
        help="list the quotas closest to their limit",
        description="List quotas, the most used first.",
        allow_abbrev=False,
    )
    reset = actions.add_parser(
        "reset", help="start a new window now", description="Start a new window now.", allow_abbrev=False
    )
    for action in (get, change, reset):
        action.add_argument("--user", metavar="ID", required=True, help="user")
        add_project(action)
    change.add_argument("--max-tokens", metavar="N", type=_tokens, help="tokens a day")
    change.add_argument("--max-cost", metavar="DOLLARS", type=_dollars, help="dollars a day, such as 12.50")
    change.add_argument("--create-project", action="store_true", help="create the project if it does not exist")
    top.add_argument("--project", metavar="ID", help="only this project")
    top.add_argument("--limit", "-n", metavar="N", type=_tokens, default=20, help="how many (default: 20)")
    get.set_defaults(run=_get)
    change.set_defaults(run=_set, complain=change.error)
    top.set_defaults(run=_top)
    reset.set_defaults(run=_reset)
    for action in (get, change, top, reset):
        add_api(action)


def _get(arguments: argparse.Namespace) -> int:
    client, caller = _connect(arguments)
    return _print_one(client.get("/v1/quota/status", caller), arguments.json)


def _set(arguments: argparse.Namespace) -> int:
    limits = {"maxTokensDaily": arguments.max_tokens, "maxCostDaily": arguments.max_cost}
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        arguments.complain("give --max-tokens, --max-cost or both")
    client, caller = _connect(arguments)
    is_new = not exact_document(client.get("/v1/quota/status", caller))["exists"]
    answer = client.post("/v1/quota/update", {**caller, **given, "createProject": arguments.create_project})
    if is_new:
        print(f"sidegate: {shown(arguments.user)} is new in {shown(caller['projectId'])}", file=sys.stderr)
    return _print_one(answer, arguments.json)


def _reset(arguments: argparse.Namespace) -> int:
    client, caller = _connect(arguments)
    return _print_one(client.post("/v1/quota/reset", caller), arguments.json)


def _top(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    project = {} if arguments.project is None else {"projectId": arguments.project}
    body = client.get("/v1/quota/top", {**project, "limit": str(arguments.limit)})
    found = exact_document(body)
    print(printable_json(body) if arguments.json else "\n".join(_table(found["quotas"])))
    return Exit.OK


def _connect(arguments: argparse.Namespace) -> tuple[ApiClient, dict[str, str]]:
    loaded = settings(arguments)
    return connect(arguments.url, loaded), {"userId": arguments.user, "projectId": project_of(arguments, loaded)}


def _print_one(body: bytes, as_json: bool) -> int:
    found = exact_document(body)
    print(printable_json(body) if as_json else "\n".join(_outline(found)))
    return Exit.OK


def _outline(quota: Quota) -> Iterator[str]:
    """Yield the lines of one quota: tokens and dollars, by what became of them."""
    unseen = "" if quota["exists"] else "; not seen yet"
    yield f"{shown(quota['userId'])} in {shown(quota['projectId'])}{unseen}"
    yield f"from {quota['windowStartedAt']} to {quota['resetAt']}"
    yield _ONE_COLUMNS.format("", "LIMIT", "USED", "REMAINING", "HELD", "BURNED")
    for label, noun in (("tokens", "Tokens"), ("dollars", "Cost")):
        yield _ONE_COLUMNS.format(label, *(_figure(quota[part.format(noun)]) for part in _PARTS))


def _table(quotas: list[Quota]) -> Iterator[str]:
    """Yield many quotas, one per line. USED is the percentage of whichever limit is closer."""
    yield _TOP_COLUMNS.format("USER", "PROJECT", "USED", "TOKENS", "OF", "COST $", "OF $")
    for quota in quotas:
        tokens, max_tokens = quota["currentTokensToday"], quota["maxTokensDaily"]
        cost, max_cost = quota["currentCostToday"], quota["maxCostDaily"]
        yield _TOP_COLUMNS.format(
            shown(quota["userId"]),
            shown(quota["projectId"]),
            f"{max(_percent(tokens, max_tokens), _percent(cost, max_cost))}%",
            str(tokens),
            str(max_tokens),
            f"{cost:.6f}",
            f"{max_cost:.2f}",
        )


def _figure(value: int | Decimal) -> str:
    """Return a number with all its digits, never in scientific notation."""
    return str(value) if isinstance(value, int) else f"{value:f}"


def _percent(used: int | Decimal, limit: int | Decimal) -> int:
    """Return the used part of a limit in percent, rounded down; a limit of 0 is 100 % used."""
    return int(100 * used // limit) if limit else 100


def _tokens(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise argparse.ArgumentTypeError("must be a whole number such as 1000000")
    return int(text)


def _dollars(text: str) -> str:
    """Return the text unchanged; the API reads it exactly."""
    if not _DOLLARS.fullmatch(text):
        raise argparse.ArgumentTypeError("must be dollars such as 12.50, with at most 9 digits after the point")
    return text
