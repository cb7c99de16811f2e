"""The rules of the policy: what a secret, personal data, a keyword or a command looks like. Data, read from YAML.

A rule is a pattern in RE2's syntax, so that no rule can cost more than linear time, and what the pattern cannot say:

    group `secret`   the part that is the secret; what stands before it is context (`password = `), else all of it
    group `name`     what the value is called, for rules that tell names apart (`not_named`)
    alphabet         the characters of the token. A finding is the maximal run of them, so no tail is left behind
    exact            the run has to end where the pattern ends: formats of a fixed length
    until            a text that ends the run, itself included (`-----END ...-----`)
    boundary         what may not stand right before the match; see `proxy.policy.boundaries`
    validators       functions that all must accept the secret; `checksum`: one that lowers the severity when it fails
    examples         texts that must match and texts that must not; they are part of the file and tested with it

`{{name}}` in a pattern or a gate stands for a piece of pattern under `parts`.

Repeats without an upper bound are bounded when a rule is read, so a match is decided within a known number of
characters; the run of the alphabet may be endless, as it only has to be followed.

Failure mode: a file with mistakes is not used at all; `RuleError` names every mistake in it, never a matched text.

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
from proxy.findings import Category, Severity
from proxy.policy import patterns, rule_checks

SECRET_GROUP: Final = "secret"
NAME_GROUP: Final = "name"
DEFAULT_MAX_LENGTH: Final = 512
NO_PARTS: Final[Mapping[str, str]] = MappingProxyType({})
SHIPPED: Final = resources.ROOT / "config" / "policy.yaml"
_PART: Final = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")


class RuleError(Exception):
    """Rules cannot be used. `problems` holds every mistake, each beginning with the rule's id."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Patterns are RE2 text; everything has been checked."""

    id: str
    category: Category
    severity: Severity
    pattern: str
    """Bounded. Has the group `secret` where only a part of the match is to be hidden."""
    gate: str
    """A superset of the pattern without upper bounds: where it does not match, the pattern cannot."""
    alphabet: str = ""
    """A class such as `[A-Za-z0-9_-]`; empty: the match is the finding."""
    exact: bool = False
    until: str = ""
    max_length: int = DEFAULT_MAX_LENGTH
    """How many characters of a run the validators see; what follows is hidden without being looked at."""
    boundary: str = "word"
    """Name of a function in `boundaries`."""
    validators: tuple[str, ...] = ()
    """Names of functions in `validators`; all must accept."""
    checksum: str = ""
    """Name of a validator whose failure makes the finding `medium`, and whose success clears it of being a sample."""
    placeholders: bool = True
    """Whether samples such as `sk-your-key-here` are let pass."""
    allow: tuple[str, ...] = ()
    """Patterns of secrets that are let pass; they have to match all of it."""
    not_named: tuple[str, ...] = ()
    """Patterns; where one is found in the group `name`, the value is none: `max_tokens = ...`."""
    match: tuple[str, ...] = ()
    no_match: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order of their file."""

    rules: tuple[Rule, ...]

    @cached_property
    def version(self) -> str:
        """Return a short hash of everything that decides a finding; examples do not."""
        content = [asdict(replace(rule, match=(), no_match=())) for rule in self.rules]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def with_extra(self, rules: Iterable[Rule]) -> "RuleSet":
        """Return the set with `rules` laid over it: a rule of the same id is replaced, others are added."""
        by_id = {rule.id: rule for rule in (*self.rules, *rules)}
        return RuleSet(tuple(by_id.values()))


def load(path: Path | None = None) -> RuleSet:
    """Read the rules at `path`, in which the shipped parts can be used; or the shipped rules, which the tests check.

    Raises:
        RuleError: the file cannot be read or a rule in it is wrong.
    """
    document = read_document(path or SHIPPED)
    if path is None:
        return RuleSet(tuple(map(_rule, _expanded(document["rules"], document["parts"]))))
    parts = {**read_document(SHIPPED)["parts"], **(document.get("parts") or {})}
    return RuleSet(tuple(read_rules(document["rules"], parts)))


def read_document(path: Path) -> dict[str, Any]:
    """Return the file at `path`: `rules`, a list, and perhaps `parts`.

    Raises:
        RuleError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            document = yaml.load(file, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise RuleError([f"{path}: {error.strerror}"]) from error
    except yaml.YAMLError as error:
        raise RuleError([f"{path}: not YAML: {error}"]) from error
    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        raise RuleError([f"{path}: must hold a list of rules under `rules`"])
    parts = document.get("parts") or {}
    if not isinstance(parts, dict) or not all(isinstance(item, str) for pair in parts.items() for item in pair):
        raise RuleError([f"{path}: `parts` must map names to pieces of patterns"])
    return document


def read_rules(entries: Iterable[object], parts: Mapping[str, str] = NO_PARTS) -> list[Rule]:
    """Return the rules that `entries` describe, as YAML or JSON holds them. `parts`: name -> piece of a pattern.

    Raises:
        RuleError: one or more are wrong; all mistakes are in it.
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
    """Return a rule for a blocked keyword as a project lists it: word boundaries, any white space, any case."""
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    pattern = patterns.keyword(words)
    return read_rules([{"id": f"keyword-{digest}", "category": "keyword", "severity": "high", "pattern": pattern}])[0]


def _expanded(entries: Iterable[Any], parts: Mapping[str, str]) -> Iterator[Any]:
    """Put the parts in place of their `{{name}}`. A name that is no part stays, and is found as a mistake."""
    for entry in entries:
        if parts and isinstance(entry, Mapping):
            given = {key: entry[key] for key in ("pattern", "gate") if isinstance(entry.get(key), str)}
            entry = {**entry, **{key: _PART.sub(lambda name: parts.get(name[1], name[0]), given[key]) for key in given}}
        yield entry


def _rule(entry: Mapping[str, Any]) -> Rule:
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items() if value is not None
    }
    pattern = patterns.bounded(given["pattern"])
    return Rule(**{**given, "pattern": pattern, "gate": patterns.opened(given.get("gate") or pattern)})
