"""`sidegate scan`: scan files for secrets, personal data and commands, with the rules for prompts and answers.

Exit codes: 0 nothing found, 1 something found, 2 wrong usage or an unreadable file. So it can run as a pre-commit hook.

Rule of the file: findings are shown masked only. Files in UTF-16 with its mark, as PowerShell writes them, are read and
written as such; bytes that are not UTF-8 are written unchanged.
"""

import argparse
import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from proxy.cli.failure import Exit
from proxy.cli.policy import add_rules, rules_of
from proxy.nouns.findings import Category, Finding, Severity
from proxy.policy.detect import Detector
from proxy.policy.mask import mask, redact

_ENDING: Final = """\
examples:
  sidegate scan --category secret $(git diff --cached --name-only --diff-filter=d)
  git log -p | sidegate scan -
  sidegate scan --redact report.log > report.clean.log

exit codes: 0 nothing found, 1 something found, 2 wrong usage or a file that cannot be read"""

_STDIN: Final = "-"
_SNIFFED_BYTES: Final = 8192
"""A file with a NUL among this many first bytes is binary, as for git."""
_MARKS: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_SEVERITIES: Final = ("low", "medium", "high")


class Text(NamedTuple):
    """A file and its content."""

    name: str
    text: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description = "Scan files for secrets, personal data and commands."
    parser.epilog = _ENDING
    parser.add_argument("files", metavar="FILE", nargs="+", help="file to scan; - is standard input")
    parser.add_argument(
        "--severity", choices=_SEVERITIES, default="medium", help="report this severity and above (default: medium)"
    )
    parser.add_argument(
        "--category",
        choices=get_args(Category),
        action="append",
        help="report this category only; may be repeated (default: all)",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON document: findings and skipped files")
    output.add_argument(
        "--redact", action="store_true", help="write the text with findings masked; list them on stderr"
    )
    add_rules(parser)
    parser.set_defaults(run=_scan)


def _scan(arguments: argparse.Namespace) -> int:
    detector = Detector(rules_of(arguments))
    wanted = arguments.category or get_args(Category)
    least = _SEVERITIES.index(arguments.severity)
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    failed = False
    for name in arguments.files:
        try:
            content = _read(name)
        except OSError as error:
            failed = True
            _tell(f"{name}: {error.strerror}")
            continue
        encoding, errors = _encoding(content)
        if encoding is None:
            skipped.append(name)
            _tell(f"{name}: binary, skipped")
            continue
        text = content.decode(encoding, errors)
        found = [
            finding
            for finding in detector.find(text)
            if finding.category in wanted and _SEVERITIES.index(finding.severity) >= least
        ]
        rows += _rows(Text(_shown_name(name), text), found)
        if arguments.redact:
            sys.stdout.buffer.write(redact(text, found).encode(encoding, errors))
    _report(arguments, rows, skipped)
    return Exit.USAGE if failed else Exit.FAILED if rows else Exit.OK


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()


def _encoding(content: bytes) -> tuple[str | None, str]:
    """Return how a file is encoded, `None` for a binary one, and what to do with bytes that are not."""
    for mark, encoding in _MARKS:
        if content.startswith(mark) and len(content) % 2 == 0:
            return encoding, "surrogatepass"
    return None if b"\0" in content[:_SNIFFED_BYTES] else "utf-8", "surrogateescape"


def _shown_name(name: str) -> str:
    return "<stdin>" if name == _STDIN else os.fsencode(name).decode("utf-8", "replace")


def _report(arguments: argparse.Namespace, rows: list[dict[str, Any]], skipped: list[str]) -> None:
    if arguments.json:
        print(json.dumps({"findings": rows, "skipped": skipped}, indent=2))
        return
    out = sys.stderr if arguments.redact else sys.stdout
    for row in rows:
        print("{file}:{line}:{column} {rule} {severity} {masked}".format(**row), file=out)


def _rows(source: Text, found: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    """Yield a row for each finding. Lines and columns count from 1, columns in characters."""
    line, begin = 1, 0
    for finding in _outermost(found):
        last = source.text.rfind("\n", begin, finding.start)
        if last >= 0:
            line += source.text.count("\n", begin, finding.start)
            begin = last + 1
        yield {
            "file": source.name,
            "line": line,
            "column": finding.start - begin + 1,
            "rule": finding.rule_id,
            "category": finding.category,
            "severity": finding.severity,
            "masked": mask(source.text[finding.start : finding.end]),
        }


def _outermost(found: Iterable[Finding]) -> Iterator[Finding]:
    """Skip findings within another one of the same category and at least the same severity."""
    last: dict[Category, list[Finding]] = {}
    for finding in sorted(found, key=lambda each: (each.start, -each.end, -_weight(each.severity))):
        before = last.setdefault(finding.category, [])
        if not any(each.end >= finding.end and _weight(each.severity) >= _weight(finding.severity) for each in before):
            yield finding
        before[:] = [each for each in before if each.end > finding.start] + [finding]


def _weight(severity: Severity) -> int:
    return _SEVERITIES.index(severity)


def _tell(line: str) -> None:
    print(f"sidegate: {line}", file=sys.stderr)
