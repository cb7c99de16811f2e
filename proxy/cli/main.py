"""`sidegate`: find the command, run it, turn what went wrong into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration cannot be used, 130 interrupted by Ctrl-C.

Rule of the file: results go to standard output, everything about the run to standard error, and no traceback for what a
user can cause. Only the module of the command that was typed is imported.

Source: sysexits.h (78); Python documentation, "Note on SIGPIPE".
"""

import argparse
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Final, NoReturn

from proxy.cli.failure import CommandFailed, Exit
from proxy.config.names import did_you_mean, nearest, shown
from proxy.config.problems import ConfigError
from proxy.errors import ProxyError
from proxy.lazy import function

COMMANDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "serve": ("proxy.cli.serve:configure", "start the proxy"),
        "config": ("proxy.cli.config:configure", "check, show or describe the configuration"),
        "migrate": ("proxy.cli.migrate:configure", "change the schema of the database, or tell where it stands"),
        "orgs": ("proxy.cli.orgs:configure", "look at organizations and change them"),
        "projects": ("proxy.cli.projects:configure", "look at projects and their settings, and change them"),
        "users": ("proxy.cli.users:configure", "say who may do what in a project"),
        "keys": ("proxy.cli.keys:configure", "make, list, rotate and revoke API keys"),
        "quota": ("proxy.cli.quota:configure", "look at the quotas of callers and change them"),
        "route": ("proxy.cli.route:configure", "explain where a request would go, and show the providers"),
        "analytics": ("proxy.cli.analytics:configure", "ask who spent what, where and why"),
        "traces": ("proxy.cli.traces:configure", "look at the traces of a running proxy"),
        "policy": ("proxy.cli.policy:configure", "check the rules of the policy, or list them"),
        "scan": ("proxy.cli.scan:configure", "look for secrets, personal data and commands in files"),
        "completion": ("proxy.cli.completion:configure", "make a shell complete this command"),
        "demo-upstream": ("proxy.cli.demo:configure", "start a demo provider that needs no key"),
    }
)
"""Name -> function that describes the command's arguments and sets `run`, and one line of help."""

_ENDING: Final = """\
examples:
  sidegate serve --config sidegate.yaml
  sidegate config check --config sidegate.yaml
  sidegate traces tail --follow

`sidegate COMMAND --help` explains a command. Settings are read from the file, then from the
environment, then from the options; the rightmost wins."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line and a hint."""

    def error(self, message: str) -> NoReturn:
        """Report wrong usage and leave with its exit code."""
        self.exit(Exit.USAGE, f"sidegate: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. `argv`: without the program's name; the process's own by default."""
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
        # The reader left (`| head`). Whatever is still buffered must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or type(error).__name__}", Exit.FAILED)


def _complain(text: str, code: Exit) -> int:
    print(f"sidegate: {text}", file=sys.stderr)
    return code


def make_parser(described: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands, of which only some are described: those cost an import each."""
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
            function(target)(command)
    return parser


def _parse(argv: list[str]) -> argparse.Namespace:
    typed = next((word for word in argv if not word.startswith("-")), None)
    parser = make_parser(() if typed is None else (typed,))
    if typed is not None and typed not in COMMANDS:
        parser.error(f"there is no command {shown(typed)}{did_you_mean(nearest(typed, COMMANDS)).rstrip('?')}")
    return parser.parse_args(argv)
