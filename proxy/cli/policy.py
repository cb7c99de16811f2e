"""`sidegate policy`: validate rules and run their examples, or list them.

Rule of the file: examples are never printed; a failing one is named by its rule and its number.
"""

import argparse
import json
from pathlib import Path
from typing import Final

from proxy.cli.failure import CommandFailed, Exit
from proxy.policy import examples
from proxy.policy.rules import SHIPPED, RuleError, RuleSet, load

_DESCRIPTION: Final = """\
check    validate a file of rules, run its examples, report every mistake; exit code 1 if there is one.
list     print the rules: id, category and severity."""

_ENDING: Final = """\
examples:
  sidegate policy check                     the shipped rules
  sidegate policy check my-rules.yaml       rules of your own
  sidegate policy list --json | jq '.[] | select(.category == "pii")'"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = _DESCRIPTION, _ENDING
    actions = parser.add_subparsers(metavar="check|list", required=True)
    check = actions.add_parser("check", help="run checks and examples", description="Run a file's checks and examples.")
    check.add_argument("file", metavar="FILE", type=Path, nargs="?", default=SHIPPED, help="default: the shipped rules")
    check.set_defaults(run=_check)
    show = actions.add_parser("list", help="print the rules", description="Print the rules.")
    add_rules(show)
    show.add_argument("--json", action="store_true", help="one JSON array, with patterns")
    show.set_defaults(run=_list)


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add `--rules`."""
    parser.add_argument("--rules", metavar="FILE", type=Path, help="rules of your own, laid over the shipped ones")


def rules_of(arguments: argparse.Namespace) -> RuleSet:
    """Return the shipped rules, with those of `--rules` laid over them.

    Raises:
        CommandFailed: the file cannot be used; every mistake is in the message.
    """
    shipped = load()
    try:
        return shipped.with_extra(load(arguments.rules).rules) if arguments.rules else shipped
    except RuleError as error:
        raise CommandFailed(str(error)) from error


def _check(arguments: argparse.Namespace) -> int:
    try:
        rules = load(arguments.file)
        problems = list(examples.failures(rules))
    except RuleError as error:
        problems = list(error.problems)
    for problem in problems:
        print(problem)
    if problems:
        raise CommandFailed(f"{_counted(len(problems), 'mistake')} in {arguments.file}")
    count = sum(len(rule.match) + len(rule.no_match) for rule in rules.rules)
    checked = f"{_counted(len(rules.rules), 'rule')} and {_counted(count, 'example')} checked"
    print(f"{checked}, all fine (version {rules.version}).")
    return Exit.OK


def _list(arguments: argparse.Namespace) -> int:
    rules = rules_of(arguments).rules
    if arguments.json:
        keys = ("id", "category", "severity", "pattern", "validators", "checksum")
        print(json.dumps([{key: getattr(rule, key) for key in keys} for rule in rules], indent=2))
        return Exit.OK
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        print(f"{rule.id.ljust(width)}  {rule.category.ljust(8)} {rule.severity}")
    return Exit.OK


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
