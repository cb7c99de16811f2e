"""`sidegate route`: ask a running proxy how it would route a request, and for the state of its providers.

Rule of the file: `--json` prints the answer of the API; names in the tables are made safe for a terminal.
"""

import argparse
from typing import Any, Final

from proxy.cli.api_client import ApiClient, connect, exact_document, printable_json
from proxy.cli.failure import Exit
from proxy.cli.options import add_api, read_json, settings
from proxy.config.names import shown

_ENDING: Final = """\
examples:
  sidegate route explain request.json
  echo '{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}' | sidegate route explain -
  sidegate route upstreams

No provider is called and nothing is charged."""

_PLACES: Final = "{:20.20} {:>10} {:10} {:>9} {:>10}"
_LOOKS: Final = {
    "autoEscalate": "is checked, and asked for again if it is weak",
    "crossCheck": "is reviewed by a second model",
}
_CHOICES: Final = "{:5} {:20.20} {:40.40} {}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Explain routing decisions and show providers.", _ENDING
    actions = parser.add_subparsers(metavar="explain|upstreams", required=True)
    explain = actions.add_parser(
        "explain",
        help="explain how a request would be routed",
        description="Explain how a request would be routed.",
        allow_abbrev=False,
    )
    explain.add_argument("file", metavar="FILE", help="body of the request; - is standard input")
    explain.set_defaults(run=_explain)
    upstreams = actions.add_parser(
        "upstreams", help="show the providers", description="Show the providers.", allow_abbrev=False
    )
    upstreams.set_defaults(run=_upstreams)
    for action in (explain, upstreams):
        add_api(action)


def _explain(arguments: argparse.Namespace) -> int:
    body = _client(arguments).post("/v1/route", read_json(arguments.file))
    found = exact_document(body)
    if arguments.json:
        print(printable_json(body))
        return Exit.OK
    print(f"{_text(found['model'])} at {_text(found['upstream'])}: {_text(found['reason'])}")
    if found["estimate"] is not None:
        print(f"costs at most {found['estimate']['maxCost']:.9f} dollars")
    print(f"policy: {_policy(found['policy'])}")
    if looks := [text for name, text in _LOOKS.items() if found["answer"][name]]:
        print(f"the answer: {', '.join(looks)}")
    for one in found["candidates"]:
        print(_CHOICES.format(_text(one["layer"]), _text(one["upstream"]), _text(one["model"]), ""))
    for one in found["rejected"]:
        print(_CHOICES.format(_text(one["layer"]), _text(one["upstream"]), _text(one["model"]), _text(one["why"])))
    return Exit.OK


def _upstreams(arguments: argparse.Namespace) -> int:
    body = _client(arguments).get("/v1/sidegate/upstreams")
    found = exact_document(body)
    if arguments.json:
        print(printable_json(body))
        return Exit.OK
    print(_PLACES.format("UPSTREAM", "CREDENTIAL", "STATE", "IN FLIGHT", "USABLE IN"))
    for one in found["upstreams"]:
        wait = f"{one['eligibleInSeconds']:.0f}s" if one["eligibleInSeconds"] else "-"
        print(_PLACES.format(_text(one["upstream"]), one["credential"], _text(one["state"]), one["inFlight"], wait))
    return Exit.OK


def _policy(verdict: Any) -> str:
    """Return what the policy would do, and which rules say so."""
    if not verdict["scanned"]:
        return "prompts are not scanned"
    found = [f"{one['rule']} ({one['severity']}: {one['action']}) in {one['place']}" for one in verdict["findings"]]
    missed = [f"{one['place'] or 'a part'} cannot be scanned ({one['reason']})" for one in verdict["unscanned"]]
    return _text("; ".join([verdict["action"], *found, *missed]))


def _client(arguments: argparse.Namespace) -> ApiClient:
    return connect(arguments.url, settings(arguments))


def _text(value: Any) -> str:
    return "-" if value is None else shown(str(value), 256)
