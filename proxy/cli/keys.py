"""`sidegate keys`: API keys of users, over the API of a running proxy.

Rule of the file: a new key is the only thing on standard output, so that a script can capture it; everything about it
goes to standard error. The key is never shown again.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from proxy.cli.api_client import connect, document_of, segment
from proxy.cli.failure import Exit
from proxy.cli.options import add_api, add_project, project_of, settings, whole_number
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate keys create --user alice --project shop --name laptop --days 90
  sidegate keys create --user ci --name tests --model gpt-4o-mini --surface data > key.txt
  sidegate keys list --project shop
  sidegate keys rotate ID --overlap-hours 24
  sidegate keys revoke ID

Without --project, it is the project of requests that name none. A user without a role in the project
becomes a developer there. A revoked key stops working within seconds everywhere."""

_COLUMNS: Final = "{:12} {:8} {:24.24} {:20.20} {:10} {:20} {}"
_SCOPES: Final = (
    ("--model", "models", "only for this model; may be repeated"),
    ("--operation", "operations", "only for this operation or kind: chat, embeddings ...; may be repeated"),
    ("--surface", "surfaces", "only for data (models) or api (management); may be repeated"),
)

_OF_NO_CALLER: Final = (
    "sidegate: this proxy takes callers of models at their word (auth.mode: trusted) and ignores their keys; "
    "set auth.mode to keys if this key is to say who calls"
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Create, list, rotate and revoke API keys.", _ENDING
    actions = parser.add_subparsers(metavar="create|list|rotate|revoke", required=True)
    create = actions.add_parser("create", help="create a key and print it, once", allow_abbrev=False)
    create.add_argument("--user", metavar="ID", required=True, help="whose key it is")
    create.add_argument("--name", metavar="TEXT", required=True, help="what it is for")
    create.add_argument(
        "--days", metavar="N", type=whole_number(1, 3650), help="lifetime in days (default: until it is revoked)"
    )
    for flag, member, text in _SCOPES:
        create.add_argument(flag, dest=member, metavar="NAME", action="append", help=text)
    create.set_defaults(run=_create)
    listing = actions.add_parser("list", help="list keys, newest first", allow_abbrev=False)
    listing.add_argument("--user", metavar="ID", help="only keys of this user")
    listing.set_defaults(run=_list)
    rotate = actions.add_parser("rotate", help="create a successor and print it, once", allow_abbrev=False)
    rotate.add_argument("id", metavar="ID", help="id of the key")
    rotate.add_argument(
        "--overlap-hours",
        metavar="N",
        type=whole_number(0, 720),
        default=24,
        help="how long the old key keeps working (default: 24)",
    )
    rotate.set_defaults(run=_rotate)
    revoke = actions.add_parser("revoke", help="revoke a key now", allow_abbrev=False)
    revoke.add_argument("id", metavar="ID", help="id of the key")
    revoke.set_defaults(run=_revoke)
    for action in (create, listing):
        add_project(action)
    for action in (create, listing, rotate, revoke):
        add_api(action)


def _create(arguments: argparse.Namespace) -> int:
    loaded = settings(arguments)
    scopes = {member: found for _, member, _ in _SCOPES if (found := getattr(arguments, member))}
    document: dict[str, Any] = {
        "name": arguments.name,
        "userId": arguments.user,
        "projectId": project_of(arguments, loaded),
        "scopes": scopes,
    }
    if arguments.days is not None:
        document["expiresAt"] = (datetime.now(UTC) + timedelta(days=arguments.days)).isoformat()
    client = connect(arguments.url, loaded)
    mode = client.get_json("/v1/sidegate/whoami")["authMode"]
    code = _show_new(client.post("/v1/sidegate/keys", document), arguments.json)
    if mode == "trusted":
        print(_OF_NO_CALLER, file=sys.stderr)
    return code


def _rotate(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    path = f"/v1/sidegate/keys/{segment(arguments.id)}/rotate"
    return _show_new(client.post(path, {"overlapSeconds": arguments.overlap_hours * 3600}), arguments.json)


def _revoke(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    key = document_of(client.post(f"/v1/sidegate/keys/{segment(arguments.id)}/revoke", {}))
    print(json.dumps(key) if arguments.json else f"{key['id']} of {shown(key['userId'])} is revoked")
    return Exit.OK


def _list(arguments: argparse.Namespace) -> int:
    client = connect(arguments.url, settings(arguments))
    asked = {"projectId": arguments.project, "userId": arguments.user}
    keys = client.get_all("/v1/sidegate/keys", "keys", asked)
    print(json.dumps(keys) if arguments.json else "\n".join(_table(keys)))
    return Exit.OK


def _show_new(body: bytes, as_json: bool) -> int:
    made = document_of(body)
    print(json.dumps(made) if as_json else made["key"])
    until = f" until {made['expiresAt']}" if made["expiresAt"] else ""
    who = f"{shown(made['userId'])}, {made['role']} in {shown(made['projectId'])}"
    print(f"sidegate: key {made['id']} of {who}{until}; it is not shown again", file=sys.stderr)
    return Exit.OK


def _table(keys: list[Mapping[str, Any]]) -> Iterator[str]:
    yield _COLUMNS.format("KEY", "STATE", "USER", "PROJECT", "ROLE", "LAST USED", "NAME")
    for key in keys:
        state = "valid" if key["isValid"] else "revoked" if key["revokedAt"] else "expired"
        used = (key["lastUsedAt"] or "-")[:19]
        role = key["role"] or "-"
        names = (shown(key["userId"]), shown(key["projectId"]))
        yield _COLUMNS.format(key["id"], state, *names, role, used, shown(key["name"]))
