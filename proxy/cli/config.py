"""`sidegate config`: validate the configuration, show what is in effect and why, describe every key.

Rule of the file: no secret is shown; hidden values become a fixed number of asterisks.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import reduce
from typing import Any, Final

from proxy.cli.failure import Exit
from proxy.cli.options import add_config, settings
from proxy.config import layers
from proxy.config.document import json_schema, yaml_document, yaml_value
from proxy.config.keys import KEYS, Key
from proxy.config.layers import LayersError
from proxy.config.load import Loaded
from proxy.config.named_files import named_files
from proxy.config.schema import Config
from proxy.policy.policy import load_rules
from proxy.policy.rules import RuleError
from proxy.upstream import pricing
from proxy.upstream.pricing import PriceTableError

_DESCRIPTION: Final = """\
check     report every mistake with its place, also in the files it names (layers, prices, policy rules);
          exit code 78 if there is one. Warnings do not fail.
show      print every key in effect and where it was set. Secrets are hidden.
schema    print the JSON schema, for editors and pipelines.
template  print a configuration file with every key, its default and its meaning."""

_ENDING: Final = """\
example:
  sidegate config template > sidegate.yaml
  sidegate config check --config sidegate.yaml"""

_HIDDEN: Final = "********"
_VALUE_COLUMN: Final = 36
_ORIGIN_COLUMN: Final = 66


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _ENDING
    actions = parser.add_subparsers(metavar="check|show|schema|template", required=True)
    check = actions.add_parser("check", help="report every mistake", description="Report every mistake with its place.")
    add_config(check)
    check.set_defaults(run=_check)
    show = actions.add_parser(
        "show", help="print what is in effect", description="Print every key in effect, and where it was set."
    )
    add_config(show)
    show.add_argument("--json", action="store_true", help="one JSON object: key -> {value, origin}")
    show.set_defaults(run=_show)
    schema = actions.add_parser("schema", help="print the JSON schema", description="Print the JSON schema.")
    schema.set_defaults(run=lambda _: _print(json_schema()))
    template = actions.add_parser(
        "template", help="print a file with every key", description="Print a configuration file with every key."
    )
    template.set_defaults(run=lambda _: _print(yaml_document()))


def _print(text: str) -> int:
    sys.stdout.write(text)
    return Exit.OK


def _check(arguments: argparse.Namespace) -> int:
    loaded = settings(arguments)
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if mistakes := list(_mistakes_in_files(loaded.config)):
        print("\n".join(mistakes), file=sys.stderr)
        return Exit.CONFIGURATION
    changed = sum(origin.kind != "default" for origin in loaded.origins.values())
    source = loaded.path or "no file"
    providers = ", ".join(provider.base_url for provider in loaded.config.providers)
    upstream = "the demo upstream" if loaded.demo else providers
    print(f"The configuration is valid ({source}; {changed} of {len(KEYS)} keys set; requests go to {upstream}).")
    return Exit.OK


def _mistakes_in_files(config: Config) -> Iterator[str]:
    """Yield the mistakes in files that the configuration names, each after its key."""
    named = named_files(config)
    readers: Mapping[str, Callable[[], object]] = {
        "routing.layers_file": lambda: layers.load(named.get("routing.layers_file"), config.providers),
        "prices.file": lambda: pricing.load(named.get("prices.file"), config.prices),
        "policy.rules_file": lambda: load_rules(config.policy.rules_file),
    }
    for key, read in readers.items():
        try:
            read()
        except (LayersError, PriceTableError, RuleError) as error:
            yield from (f"{key}: {line}" for line in str(error).splitlines())


def _show(arguments: argparse.Namespace) -> int:
    loaded = settings(arguments)
    if arguments.json:
        rows = {
            key.name: {"value": shown_value(key, loaded), "origin": str(loaded.origins[key.path])}
            for key in KEYS.values()
        }
        return _print(json.dumps(rows, indent=2, default=_number) + "\n")
    return _print("\n".join(_lines(loaded)) + "\n")


def _lines(loaded: Loaded) -> Iterator[str]:
    for key in KEYS.values():
        left = f"{key.name}:".ljust(_VALUE_COLUMN) + " " + yaml_value(shown_value(key, loaded))
        yield f"{left.ljust(_ORIGIN_COLUMN)}  # {loaded.origins[key.path]}"


def shown_value(key: Key, loaded: Loaded) -> Any:
    """Return the value of a key, hidden if it is a secret."""
    value = reduce(getattr, key.path, loaded.config)
    if not key.hidden or value is None:
        return value
    if isinstance(value, tuple):
        return [f"{entry.name} {entry.base_url}" for entry in value]
    return {name: _HIDDEN for name in value} if isinstance(value, dict) else _HIDDEN


def _number(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"cannot show a {type(value).__name__}")
