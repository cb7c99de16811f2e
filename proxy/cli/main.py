"""`sidegate`: find the command, run it, and turn errors into one line and an exit code.

Exit codes: 0 success, 1 failure, 2 wrong usage, 78 invalid configuration, 130 interrupted by Ctrl-C.

Rule of the file: results go to standard output, everything else to standard error; nothing a user can cause prints a
traceback. Only the module of the command typed is imported.

Source: sysexits.h (78); Python documentation, "Note on SIGPIPE".
"""

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final, NoReturn

from proxy.cli import streams
from proxy.cli.failure import CommandFailed, Exit
from proxy.config.names import did_you_mean, nearest, shown
from proxy.config.problems import ConfigError
from proxy.errors import ProxyError
from proxy.process.lazy import imported

COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "serve": ("proxy.cli.serve:configure", "start the proxy"),
        "config": ("proxy.cli.config:configure", "check, show or describe the configuration"),
        "migrate": ("proxy.cli.migrate:configure", "apply or roll back database migrations, or list them"),
        "orgs": ("proxy.cli.orgs:configure", "manage organizations"),
        "projects": ("proxy.cli.projects:configure", "manage projects and their settings"),
        "users": ("proxy.cli.users:configure", "manage the roles of users in projects"),
        "keys": ("proxy.cli.keys:configure", "create, list, rotate and revoke API keys"),
        "quota": ("proxy.cli.quota:configure", "show and change quotas"),
        "route": ("proxy.cli.route:configure", "explain how a request would be routed, and show the providers"),
        "analytics": ("proxy.cli.analytics:configure", "show who spent what, where and why; rebuild the sums"),
        "traces": ("proxy.cli.traces:configure", "show, follow and export traces"),
        "dead-letters": ("proxy.cli.dead_letters:configure", "list and store records that PostgreSQL had refused"),
        "policy": ("proxy.cli.policy:configure", "check or list the rules of the policy"),
        "scan": ("proxy.cli.scan:configure", "scan files for secrets, personal data and commands"),
        "completion": ("proxy.cli.completion:configure", "print a shell completion script"),
        "demo-upstream": ("proxy.cli.demo:configure", "start a demo provider that needs no key"),
    }
)
"""Name -> the function that adds the command's arguments and sets `run`, and one line of help."""

_ENDING: Final = """\
examples:
  sidegate serve --config sidegate.yaml
  sidegate config check --config sidegate.yaml
  sidegate traces tail --follow

`sidegate COMMAND --help` explains a command. Settings are read from the file, then from the
environment, then from the options; the rightmost wins."""


_ALONE: Final = frozenset({"-h", "--help", "--version"})
"""Options that need no command."""


class _Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line, with a hint."""

    def error(self, message: str) -> NoReturn:
        """Report wrong usage and exit."""
        self.exit(Exit.USAGE, f"sidegate: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is left here, where the options are known, and not in the parser that all commands share."""
        found, left = super().parse_known_args(args, namespace)
        if left:
            name = left[0].partition("=")[0]
            meant = nearest(name, self._option_string_actions) if name.startswith("--") else None
            self.error(f"unrecognized arguments: {shown(' '.join(left))}{did_you_mean(meant).rstrip('?')}")
        return found, left

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            print(message, end="", flush=True)  # argparse would ignore that it cannot be written, and end with 0
        else:
            super()._print_message(message, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. `argv`: without the program's name; the process's own by default."""
    streams.fill()
    try:
        return _run(argv)
    finally:
        streams.settle(sys.stdout)
        streams.settle(sys.stderr)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parse(sys.argv[1:] if argv is None else list(argv))
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        count = len(error.problems)
        print(error, file=sys.stderr)
        return _complain(f"{count} mistake{'s' if count > 1 else ''} in the configuration", Exit.CONFIGURATION)
    except (CommandFailed, ProxyError) as error:
        return _complain(str(error), Exit.FAILED)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.FAILED  # the reader is gone (`| head`)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or type(error).__name__}", Exit.FAILED)


def _complain(text: str, code: Exit) -> int:
    print(f"sidegate: {text}", file=sys.stderr)
    return code


def make_parser(described: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands. Only those in `described` get their arguments, as each costs an import."""
    parser = _Parser(
        prog="sidegate",
        description="An OpenAI-compatible reverse proxy: the trust boundary, the meter and the flight recorder\n"
        "of an LLM application.",
        epilog=_ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sidegate {version('sidegate')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (target, summary) in COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name in described:
            imported(target)(command)
    return parser


def _parse(argv: list[str]) -> argparse.Namespace:
    typed = next((word for word in argv if not word.startswith("-")), None)
    parser = make_parser(() if typed is None else (typed,))
    if argv and argv[0].startswith("-") and argv[0].partition("=")[0] not in _ALONE:
        parser.error(
            f"{shown(argv[0])} stands before the command; options come behind it: sidegate serve --config FILE"
        )
    if typed is not None and typed not in COMMANDS:
        parser.error(f"there is no command {shown(typed)}{did_you_mean(nearest(typed, COMMANDS)).rstrip('?')}")
    return parser.parse_args(argv)
