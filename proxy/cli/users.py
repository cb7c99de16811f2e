"""`sidegate users`: the roles of users in projects, over the API of a running proxy. `--json` prints its answer."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from proxy.auth.roles import Role
from proxy.cli.api_client import connect, document_of, segment
from proxy.cli.failure import Exit
from proxy.cli.options import add_api, add_project, project_of, settings
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate users set alice admin --project shop
  sidegate users list --project shop
  sidegate users list --user alice
  sidegate users remove alice --project shop

Roles, lowest first: viewer (reads), developer (calls models), admin (quotas, keys, members),
owner (settings of the project). A removed user loses the keys of the project."""

_COLUMNS: Final = "{:32.32} {:10} {}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Manage the roles of users in projects.", _ENDING
    actions = parser.add_subparsers(metavar="list|set|remove", required=True)
    listing = actions.add_parser("list", help="list users and their roles", allow_abbrev=False)
    listing.add_argument("--user", metavar="ID", help="only this user")
    listing.add_argument("--project", metavar="ID", help="only in this project (default: all)")
    listing.set_defaults(run=_list)
    give = actions.add_parser("set", help="give a user a role", allow_abbrev=False)
    give.add_argument("user", metavar="USER", help="id of the user")
    give.add_argument("role", metavar="ROLE", choices=get_args(Role), help=", ".join(get_args(Role)))
    give.set_defaults(run=_set)
    remove = actions.add_parser("remove", help="remove a user from a project", allow_abbrev=False)
    remove.add_argument("user", metavar="USER", help="id of the user")
    remove.set_defaults(run=_remove)
    for action in (give, remove):
        add_project(action)
    for action in (listing, give, remove):
        add_api(action)


def _list(arguments: argparse.Namespace) -> int:
    asked = {"projectId": arguments.project, "userId": arguments.user}
    found = connect(arguments.url, settings(arguments)).get_all("/v1/sidegate/users", "users", asked)
    print(json.dumps(found) if arguments.json else "\n".join(_table(found)))
    return Exit.OK


def _set(arguments: argparse.Namespace) -> int:
    project, answer = _ask(arguments, "PUT", {"role": arguments.role})
    said = f"{shown(arguments.user)} is {arguments.role} in {shown(project)}"
    print(json.dumps(answer) if arguments.json else said)
    return Exit.OK


def _remove(arguments: argparse.Namespace) -> int:
    project, answer = _ask(arguments, "DELETE", None)
    keys = f"; keys revoked: {answer['revokedKeys']}"
    print(json.dumps(answer) if arguments.json else f"{shown(arguments.user)} is removed from {shown(project)}{keys}")
    return Exit.OK


def _ask(arguments: argparse.Namespace, method: str, document: Mapping[str, Any] | None) -> tuple[str, Any]:
    loaded = settings(arguments)
    project = project_of(arguments, loaded)
    path = f"/v1/sidegate/projects/{segment(project)}/members/{segment(arguments.user)}"
    return project, document_of(connect(arguments.url, loaded).ask(method, path, None, document))


def _table(users: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _COLUMNS.format("USER", "ROLE", "PROJECT")
    for user in users:
        for each in user["roles"]:
            yield _COLUMNS.format(shown(user["userId"]), each["role"], shown(each["projectId"]))
