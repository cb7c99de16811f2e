"""Options shared by several commands, and how they reach the configuration.

Rule of the file: an option that sets a key is passed to the loader as typed; only the loader validates it.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from proxy.cli.failure import CommandFailed
from proxy.config.load import Loaded, load_from_process
from proxy.config.names import shown

_OVERRIDES: Final = {
    "--listen": "listen",
    "--ops-listen": "ops_listen",
    "--data-dir": "data_dir",
    "--reuse-port": "reuse_port",
}

_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="configuration file (default: $SIDEGATE_CONFIG, else built-in defaults)",
    )


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--data-dir`."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="journal, private PostgreSQL and admin key (default: $SIDEGATE_DATA_DIR, else var)",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add where a running proxy and its admin key are found: `--url`, `--config`, `--data-dir`."""
    parser.add_argument("--url", metavar="URL", help="address of the proxy (default: from the configuration)")
    add_config(parser)
    add_data_dir(parser)


def add_api(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that prints an answer of the API: `add_address` and `--json`."""
    parser.add_argument("--json", action="store_true", help="print the answer of the API")
    add_address(parser)


def add_project(parser: argparse.ArgumentParser) -> None:
    """Add `--project`, for commands that are about one project; see `project_of`."""
    parser.add_argument("--project", metavar="ID", help="project (default: the one of requests that name none)")


def project_of(arguments: argparse.Namespace, loaded: Loaded) -> str:
    """Return the project that `--project` names, by default the one of requests that name none."""
    project: str | None = arguments.project
    return loaded.config.identity.default_project if project is None else project


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number within bounds (inclusive)."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and lowest <= int(text) <= highest):
            raise argparse.ArgumentTypeError(f"must be a number from {lowest} to {highest}")
        return int(text)

    return parse


def moment(text: str) -> str:
    """Return a point in time as the API expects it; an age counts back from now. The type of an argument."""
    age = _AGE.fullmatch(text)
    try:
        at = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])}) if age else datetime.fromisoformat(text)
        return at.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("must be ISO 8601 or an age like 15m") from None


def read_json(file: str) -> Any:
    """Return the JSON document in a file; `-` is standard input.

    Raises:
        CommandFailed: it holds no JSON in UTF-8.
        OSError: it cannot be read.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return json.loads(text)
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except ValueError as error:
        reason = f"is not JSON: {error}"
    except RecursionError:
        reason = "is nested too deeply"
    raise CommandFailed(f"{shown(file, 256)} {reason}")


def settings(arguments: argparse.Namespace) -> Loaded:
    """Load the configuration that the arguments, the environment and the file describe.

    Raises:
        ConfigError: it has mistakes.
    """
    given = ((flag, getattr(arguments, name, None)) for flag, name in _OVERRIDES.items())
    return load_from_process(arguments.config, {flag: text for flag, text in given if text is not None})
