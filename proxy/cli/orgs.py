"""`sidegate orgs`: organizations, over the API of a running proxy. `--json` prints its answer."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.cli.api_client import connect, document_of, segment
from proxy.cli.failure import Exit
from proxy.cli.options import add_api, settings
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate orgs create acme --name "Acme Inc."
  sidegate orgs list
  sidegate orgs rename acme "Acme & Sons"
  sidegate orgs delete acme

An organization can be deleted once no project belongs to it."""

_PATH: Final = "/v1/sidegate/organizations"
_COLUMNS: Final = "{:24.24} {:19} {}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Manage organizations.", _ENDING
    actions = parser.add_subparsers(metavar="list|create|rename|delete", required=True)
    listing = actions.add_parser("list", help="list organizations", allow_abbrev=False)
    listing.set_defaults(run=_list)
    create = actions.add_parser("create", help="create an organization", allow_abbrev=False)
    create.add_argument("id", metavar="ID", help="id of the organization")
    create.add_argument("--name", metavar="TEXT", help="display name (default: the id)")
    create.set_defaults(run=_create)
    rename = actions.add_parser("rename", help="change the name of an organization", allow_abbrev=False)
    rename.add_argument("id", metavar="ID", help="id of the organization")
    rename.add_argument("name", metavar="TEXT", help="new display name")
    rename.set_defaults(run=_rename)
    delete = actions.add_parser("delete", help="delete an organization without projects", allow_abbrev=False)
    delete.add_argument("id", metavar="ID", help="id of the organization")
    delete.set_defaults(run=_delete)
    for action in (listing, create, rename, delete):
        add_api(action)


def _list(arguments: argparse.Namespace) -> int:
    found = connect(arguments.url, settings(arguments)).get_all(_PATH, "organizations", {})
    print(json.dumps(found) if arguments.json else "\n".join(_table(found)))
    return Exit.OK


def _create(arguments: argparse.Namespace) -> int:
    document = {"id": arguments.id, **({"name": arguments.name} if arguments.name else {})}
    return _change(arguments, "POST", _PATH, document, "created")


def _rename(arguments: argparse.Namespace) -> int:
    return _change(arguments, "PATCH", f"{_PATH}/{segment(arguments.id)}", {"name": arguments.name}, "changed")


def _delete(arguments: argparse.Namespace) -> int:
    return _change(arguments, "DELETE", f"{_PATH}/{segment(arguments.id)}", None, "deleted")


def _change(
    arguments: argparse.Namespace, method: str, path: str, document: Mapping[str, Any] | None, done: str
) -> int:
    answer = document_of(connect(arguments.url, settings(arguments)).ask(method, path, None, document))
    print(json.dumps(answer) if arguments.json else f"organization {shown(answer['id'])} is {done}")
    return Exit.OK


def _table(organizations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _COLUMNS.format("ORGANIZATION", "SINCE", "NAME")
    for each in organizations:
        yield _COLUMNS.format(shown(each["id"]), each["createdAt"][:19], shown(each["name"]))
