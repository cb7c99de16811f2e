"""`sidegate projects`: projects and their settings, over the API of a running proxy.

Rule of the file: settings are read before they are changed, and sent back with the version that was read, so that no
concurrent change is overwritten: the later writer is refused.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.cli.api_client import ApiClient, connect, document_of, segment
from proxy.cli.failure import CommandFailed, Exit
from proxy.cli.options import add_api, read_json, settings
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate projects create shop --org acme --name "Web shop"
  sidegate projects list --org acme
  sidegate projects config shop > shop.json
  sidegate projects configure shop shop.json
  sidegate projects configure shop --set security.redactSecrets=true --set routing.maxLayer='"L2"'
  sidegate projects archive shop

An archived project keeps its id, traces and sums; its keys and requests are refused until it is restored."""

_PATH: Final = "/v1/sidegate/projects"
_COLUMNS: Final = "{:24.24} {:20.20} {:8} {:19} {}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Manage projects and their settings.", _ENDING
    actions = parser.add_subparsers(metavar="list|create|change|config|configure|archive|restore", required=True)
    listing = actions.add_parser("list", help="list projects", allow_abbrev=False)
    listing.add_argument("--org", metavar="ID", help="only projects of this organization")
    listing.add_argument("--state", choices=("active", "archived", "all"), default="active", help="default: active")
    listing.set_defaults(run=_list)
    create = actions.add_parser("create", help="create a project", allow_abbrev=False)
    create.set_defaults(run=_create)
    change = actions.add_parser("change", help="change the name or the organization of a project", allow_abbrev=False)
    change.set_defaults(run=_change, complain=change.error)
    config = actions.add_parser("config", help="print the settings of a project as JSON", allow_abbrev=False)
    config.set_defaults(run=_config)
    configuring = actions.add_parser("configure", help="change the settings of a project", allow_abbrev=False)
    configuring.set_defaults(run=_configure, complain=configuring.error)
    archive = actions.add_parser("archive", help="archive a project; its history is kept", allow_abbrev=False)
    archive.set_defaults(run=_archive)
    restore = actions.add_parser("restore", help="restore an archived project", allow_abbrev=False)
    restore.set_defaults(run=_restore)
    for action in (create, change, config, configuring, archive, restore):
        action.add_argument("id", metavar="ID", help="id of the project")
    for action in (create, change):
        action.add_argument("--name", metavar="TEXT", help="display name")
        action.add_argument("--org", metavar="ID", help="organization it belongs to")
    configuring.add_argument("file", metavar="FILE", nargs="?", help="new settings as JSON; - is standard input")
    configuring.add_argument(
        "--set",
        metavar="NAME=JSON",
        dest="members",
        action="append",
        type=_member,
        help="change one setting; may be repeated",
    )
    for action in (listing, create, change, config, configuring, archive, restore):
        add_api(action)


def _list(arguments: argparse.Namespace) -> int:
    asked = {"organizationId": arguments.org, "state": arguments.state}
    found = connect(arguments.url, settings(arguments)).get_all(_PATH, "projects", asked)
    print(json.dumps(found) if arguments.json else "\n".join(_table(found)))
    return Exit.OK


def _create(arguments: argparse.Namespace) -> int:
    return _send(arguments, "POST", _PATH, {"id": arguments.id, **_facts(arguments)}, "created")


def _change(arguments: argparse.Namespace) -> int:
    facts = _facts(arguments)
    if not facts:
        arguments.complain("give --name, --org or both")
    return _send(arguments, "PATCH", _one(arguments), facts, "changed")


def _archive(arguments: argparse.Namespace) -> int:
    return _send(arguments, "DELETE", _one(arguments), None, "archived")


def _restore(arguments: argparse.Namespace) -> int:
    return _send(arguments, "POST", f"{_one(arguments)}/restore", {}, "active")


def _config(arguments: argparse.Namespace) -> int:
    config, _ = _read(connect(arguments.url, settings(arguments)), arguments)
    print(json.dumps(config, indent=None if arguments.json else 2))
    return Exit.OK


def _configure(arguments: argparse.Namespace) -> int:
    if (arguments.file is None) == (arguments.members is None):
        arguments.complain("give FILE or --set")
    new = None if arguments.file is None else _load(arguments.file)
    client = connect(arguments.url, settings(arguments))
    config, version = _read(client, arguments)
    if new is None:
        new = config
        for path, value in arguments.members:
            _put(new, path, value)
    answer, _ = client.exchange("PUT", f"{_one(arguments)}/config", None, new, {"If-Match": version})
    said = f"project {shown(arguments.id)} is configured"
    print(json.dumps(document_of(answer)) if arguments.json else said)
    return Exit.OK


def _read(client: ApiClient, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    body, headers = client.exchange("GET", f"{_one(arguments)}/config")
    return document_of(body), headers["ETag"]


def _load(file: str) -> dict[str, Any]:
    document = read_json(file)
    if not isinstance(document, dict):
        raise CommandFailed(f"{shown(file)} must hold a JSON object")
    return document


def _put(document: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set one member; `None` removes it. The proxy validates the result."""
    for name in path[:-1]:
        inner = document.setdefault(name, {})
        if not isinstance(inner, dict):
            raise CommandFailed(f"{name} of this project is not a JSON object; change it with FILE")
        document = inner
    document.pop(path[-1], None)
    if value is not None:
        document[path[-1]] = value


def _member(text: str) -> tuple[list[str], Any]:
    name, equals, value = text.partition("=")
    try:
        if not equals or not all(name.split(".")):
            raise ValueError
        return name.split("."), json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be NAME=JSON, such as features.enableCache=true or routing.maxLayer='\"L2\"'"
        ) from None


def _one(arguments: argparse.Namespace) -> str:
    return f"{_PATH}/{segment(arguments.id)}"


def _facts(arguments: argparse.Namespace) -> dict[str, str]:
    given = {"name": arguments.name, "organizationId": arguments.org}
    return {name: value for name, value in given.items() if value is not None}


def _send(arguments: argparse.Namespace, method: str, path: str, document: Mapping[str, Any] | None, done: str) -> int:
    answer = document_of(connect(arguments.url, settings(arguments)).ask(method, path, None, document))
    print(json.dumps(answer) if arguments.json else f"project {shown(answer['id'])} is {done}")
    return Exit.OK


def _table(projects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield _COLUMNS.format("PROJECT", "ORGANIZATION", "STATE", "SINCE", "NAME")
    for each in projects:
        state = "archived" if each["archivedAt"] else "active"
        names = (shown(each["id"]), shown(each["organizationId"]))
        yield _COLUMNS.format(*names, state, each["createdAt"][:19], shown(each["name"]))
