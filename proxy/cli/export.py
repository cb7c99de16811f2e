"""Exports of `traces` and `analytics`: CSV or JSON Lines from the API, to a file or to standard output.

A file is written as `NAME.part` and renamed when complete, so a truncated export cannot be mistaken for a whole one.
What is no file (`/dev/stdout`, a pipe) is written to as it is, and a link leads to the file that is replaced.
Progress is shown on standard error if that is a terminal.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from proxy.cli.api_client import ApiClient

_STEP: Final = 1_048_576


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add `--format` and `--output`."""
    parser.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    parser.add_argument("--output", "-o", metavar="FILE", type=Path, help="file to write (default: standard output)")


def export(client: ApiClient, path: str, parameters: Mapping[str, str], arguments: argparse.Namespace) -> int:
    """Fetch and write; return the number of bytes.

    Raises:
        CommandFailed: the proxy refuses, or the response was cut short; the file is not created then.
        OSError: the file cannot be written.
    """
    pieces = client.stream(path, {**parameters, "format": arguments.format})
    if arguments.output is None:
        return _write(pieces, sys.stdout.buffer)
    if _is_no_file(arguments.output):
        with arguments.output.open("wb") as file:
            return _write(pieces, file)
    target = arguments.output.resolve()
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with unfinished.open("wb") as file:
            written = _write(pieces, file)
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _is_no_file(path: Path) -> bool:
    """Tell whether something must be written to instead of being replaced; `/dev/stdout` also if it leads to a file."""
    return path.exists() and (not path.is_file() or path.absolute().is_relative_to("/dev"))


def _write(pieces: Iterable[bytes], file: BinaryIO) -> int:
    written = shown = 0
    for piece in pieces:
        file.write(piece)
        written += len(piece)
        if written - shown >= _STEP and sys.stderr.isatty():
            shown = written
            print(f"\r{written / 1e6:.0f} MB\r", end="", file=sys.stderr, flush=True)
    file.flush()
    return written
