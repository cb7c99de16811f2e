"""The rules of the policy: what a secret, personal data, a keyword or a command looks like. Data, read from YAML.

A rule is a pattern in RE2's syntax, so that it costs linear time, and properties that a pattern cannot express:

    group `secret`   the part that is the secret; the text before it is context (`password = `). Default: all of it
    group `name`     what the value is called, for rules that exclude names (`not_named`)
    alphabet         the characters of the token. A finding is a maximal run of them, so that no tail is left
    exact            the run has to end where the pattern ends: formats of a fixed length
    until            a text that ends the run and belongs to it (`-----END ...-----`)
    boundary         what may not precede the match; see `proxy.policy.boundaries`
    validators       functions that all must accept the secret; `checksum`: one that lowers the severity if it fails
    examples         texts that must match and texts that must not; part of the file and tested with it

`{{name}}` in a pattern or a gate is replaced by a piece of pattern from `parts`; a part may use those before it.

Repeats without an upper bound get one when a rule is read, so a match is decided within a known number of characters;
the run of the alphabet is unlimited, as it only has to be followed.

Failure mode: a file with mistakes is rejected as a whole; `RuleError` names every mistake in it, never a matched text.

Source: https://github.com/google/re2/wiki/Syntax
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from proxy import resources
from proxy.config.files import read_regular
from proxy.nouns.findings import Category, Severity
from proxy.policy import patterns, rule_checks

SECRET_GROUP: Final = "secret"
NAME_GROUP: Final = "name"
DEFAULT_MAX_LENGTH: Final = 512
NO_PARTS: Final[Mapping[str, str]] = MappingProxyType({})
SHIPPED: Final = resources.ROOT / "config" / "policy.yaml"
_MOST_BYTES: Final = 4_194_304
_PART: Final = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")


class RuleError(Exception):
    """The rules cannot be used. `problems`: every mistake, each starting with the rule's id."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Patterns are RE2 text; everything has been validated."""

    id: str
    category: Category
    severity: Severity
    pattern: str
    """Bounded. Has a group `secret` if only a part of the match is to be hidden."""
    gate: str
    """A superset of the pattern without upper bounds: if it does not match, the pattern cannot."""
    alphabet: str = ""
    """A class such as `[A-Za-z0-9_-]`; empty: the match is the finding."""
    exact: bool = False
    until: str = ""
    max_length: int = DEFAULT_MAX_LENGTH
    """The most characters of a run that validators see; the rest is hidden without being examined."""
    boundary: str = "word"
    """Name of a function in `boundaries`."""
    validators: tuple[str, ...] = ()
    """Names of functions in `validators`; all must accept."""
    checksum: str = ""
    """Name of a validator. Failure lowers the severity to `medium`, success rules out a placeholder."""
    placeholders: bool = True
    """Whether placeholders such as `sk-your-key-here` are accepted."""
    allow: tuple[str, ...] = ()
    """Patterns of secrets to accept; they have to match all of it."""
    not_named: tuple[str, ...] = ()
    """Patterns; if one is found in the group `name`, the value is not a secret: `max_tokens = ...`."""
    match: tuple[str, ...] = ()
    no_match: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order of their file."""

    rules: tuple[Rule, ...]

    @cached_property
    def version(self) -> str:
        """Return a short hash of everything that determines findings, so not of examples."""
        content = [asdict(replace(rule, match=(), no_match=())) for rule in self.rules]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def with_extra(self, rules: Iterable[Rule]) -> "RuleSet":
        """Return the set with `rules` layered over it: the same id replaces a rule, others are added."""
        by_id = {rule.id: rule for rule in (*self.rules, *rules)}
        return RuleSet(tuple(by_id.values()))


def load(path: Path | None = None) -> RuleSet:
    """Read the rules at `path`, which may use the default parts; or the default rules, which the tests validate.

    Raises:
        RuleError: the file cannot be read or contains an invalid rule.
    """
    document = read_document(path or SHIPPED)
    if path is None:
        return RuleSet(tuple(map(_rule, _expanded(document["rules"], document["parts"]))))
    parts = {**read_document(SHIPPED)["parts"], **(document.get("parts") or {})}
    return RuleSet(tuple(read_rules(document["rules"], parts)))


def read_document(path: Path) -> dict[str, Any]:
    """Return the file at `path`: `rules`, a list, and optionally `parts`.

    Raises:
        RuleError: the file cannot be read.
    """
    try:
        text = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise RuleError([f"{path}: {error.strerror}"]) from error
    if len(text) > _MOST_BYTES:
        raise RuleError([f"{path}: is larger than {_MOST_BYTES} bytes"])
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise RuleError([f"{path}: not YAML: {error}"]) from error
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        raise RuleError([f"{path}: must hold a list of rules under `rules`"])
    parts = document.get("parts") or {}
    if not isinstance(parts, dict) or not all(isinstance(item, str) for pair in parts.items() for item in pair):
        raise RuleError([f"{path}: `parts` must map names to pieces of patterns"])
    return document


def read_rules(entries: Iterable[object], parts: Mapping[str, str] = NO_PARTS) -> list[Rule]:
    """Return the rules of `entries`, as decoded from YAML or JSON. `parts`: name -> piece of a pattern.

    Raises:
        RuleError: one or more are invalid; it has all mistakes.
    """
    rules: list[Rule] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, entry in enumerate(_expanded(entries, parts), 1):
        if not isinstance(entry, Mapping):
            problems.append(f"rule {number}: must be a mapping")
            continue
        name = str(entry.get("id") or f"rule {number}")
        found = [f"{name}: {problem}" for problem in rule_checks.problems(entry)]
        if name in seen:
            found.append(f"{name}: the id is taken")
        seen.add(name)
        problems += found
        if not found:
            rules.append(_rule(entry))
    if problems:
        raise RuleError(problems)
    return rules


def keyword_rule(words: str) -> Rule:
    """Return a rule for a blocked keyword of a project: word boundaries, any white space, any case."""
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    pattern = patterns.keyword(words)
    return read_rules([{"id": f"keyword-{digest}", "category": "keyword", "severity": "high", "pattern": pattern}])[0]


def _expanded(entries: Iterable[Any], parts: Mapping[str, str]) -> Iterator[Any]:
    """Replace `{{name}}` by parts. An unknown name stays, and is reported by the validation."""
    whole: dict[str, str] = {}
    for name, text in parts.items():
        whole[name] = _filled(text, whole)
    for entry in entries:
        if parts and isinstance(entry, Mapping):
            given = {key: entry[key] for key in ("pattern", "gate") if isinstance(entry.get(key), str)}
            entry = {**entry, **{key: _filled(text, whole) for key, text in given.items()}}
        yield entry


def _filled(text: str, parts: Mapping[str, str]) -> str:
    return _PART.sub(lambda name: parts.get(name[1], name[0]), text)


def _rule(entry: Mapping[str, Any]) -> Rule:
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if value is not None
    }
    pattern = patterns.bounded(given["pattern"])
    return Rule(**{**given, "pattern": pattern, "gate": patterns.opened(given.get("gate") or pattern)})
