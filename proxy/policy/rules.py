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

Repeats without an upper bound are bounded when a rule is read, so a match is decided within a known number of
characters; the run of the alphabet may be endless, as it only has to be followed.

Failure mode: a file with mistakes is not used at all; `RuleError` names every mistake in it, never a matched text.

Source: https://github.com/google/re2/wiki/Syntax
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args

import re2
import yaml

from proxy import resources
from proxy.findings import Category, Severity
from proxy.policy import boundaries, patterns, validators

SECRET_GROUP: Final = "secret"
NAME_GROUP: Final = "name"
DEFAULT_MAX_LENGTH: Final = 512
NO_PARTS: Final[Mapping[str, str]] = MappingProxyType({})
_PART: Final = re.compile(r"\{\{([a-z][a-z0-9_]*)\}\}")
_PATTERNS: Final = ("pattern", "gate")


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


_FIELDS: Final = set(Rule.__dataclass_fields__)
_LISTS: Final = ("validators", "allow", "not_named", "match", "no_match")
_CHOICES: Final = {"category": get_args(Category), "severity": get_args(Severity)}


@dataclass(frozen=True)
class RuleSet:
    """Rules in the order of their file, and the gate that tells which of them can match a text at all."""

    rules: tuple[Rule, ...]

    @cached_property
    def version(self) -> str:
        """Return a short hash of everything that decides a finding; examples do not."""
        content = [asdict(replace(rule, match=(), no_match=())) for rule in self.rules]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def gate(self) -> re2.Set:
        """Return the compiled gate; its answers are indexes into `rules`, `None` for none."""
        gate = re2.Set.SearchSet(patterns.gate_options())
        for rule in self.rules:
            gate.Add(rule.gate)
        gate.Compile()
        return gate

    def with_extra(self, rules: Iterable[Rule]) -> "RuleSet":
        """Return the set with `rules` laid over it: a rule of the same id is replaced, others are added."""
        by_id = {rule.id: rule for rule in (*self.rules, *rules)}
        return RuleSet(tuple(by_id.values()))


def load(path: Path | None = None) -> RuleSet:
    """Read the rules at `path`, or the shipped ones.

    Raises:
        RuleError: the file cannot be read or a rule in it is wrong.
    """
    source = path or resources.ROOT / "config" / "policy.yaml"
    try:
        with source.open("rb") as file:
            document = yaml.load(file, Loader=yaml.CSafeLoader)
    except OSError as error:
        raise RuleError([f"{source}: {error.strerror}"]) from error
    except yaml.YAMLError as error:
        raise RuleError([f"{source}: not YAML: {error}"]) from error
    entries = document.get("rules") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise RuleError([f"{source}: must hold a list of rules under `rules`"])
    return RuleSet(tuple(read_rules(entries, document.get("parts") or {})))


def read_rules(entries: Iterable[object], parts: Mapping[str, str] = NO_PARTS) -> list[Rule]:
    """Return the rules that `entries` describe, as YAML or JSON holds them. `parts`: name -> piece of a pattern.

    Raises:
        RuleError: one or more are wrong; all mistakes are in it.
    """
    rules: list[Rule] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            problems.append(f"rule {number}: must be a mapping")
            continue
        entry = {key: _whole(value, parts) if key in _PATTERNS else value for key, value in entry.items()}
        name = str(entry.get("id") or f"rule {number}")
        found = [f"{name}: {problem}" for problem in _problems(entry)]
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


def _whole(value: Any, parts: Mapping[str, str]) -> Any:
    """Return a pattern with its `{{name}}` replaced; a name that no part has stays, and is found as a mistake."""
    return _PART.sub(lambda part: parts.get(part[1], part[0]), value) if isinstance(value, str) else value


def _rule(entry: Mapping[str, Any]) -> Rule:
    given: dict[str, Any] = {key: tuple(value) if key in _LISTS else value for key, value in entry.items()}
    pattern = patterns.bounded(given["pattern"])
    return Rule(**{**given, "pattern": pattern, "gate": patterns.opened(given.get("gate", pattern))})


def _problems(entry: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with one entry."""
    problems = [f"unknown key `{key}`" for key in entry if key not in _FIELDS]
    problems += [f"`{key}` is missing" for key in ("id", "category", "severity", "pattern") if not entry.get(key)]
    for key, value in entry.items():
        if key in _FIELDS and (wrong := _wrong_value(key, value)):
            problems.append(f"`{key}` {wrong}")
    return problems


def _wrong_value(key: str, value: object) -> str | None:
    """Return what is wrong with the value of one key, or nothing."""
    if key in ("exact", "placeholders"):
        return None if isinstance(value, bool) else "must be true or false"
    if key == "max_length":
        return None if isinstance(value, int) and 0 < value <= 65536 else "must be between 1 and 65536"
    if key in _LISTS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return "must be a list of texts"
        return (
            _wrong_names(value)
            if key == "validators"
            else _wrong_patterns(value)
            if key in ("allow", "not_named")
            else None
        )
    if not isinstance(value, str):
        return "must be text"
    return _wrong_text(key, value)


def _wrong_text(key: str, value: str) -> str | None:
    match key:
        case "category" | "severity":
            return None if value in _CHOICES[key] else f"must be one of {', '.join(_CHOICES[key])}"
        case "boundary":
            return None if value in boundaries.BOUNDARIES else f"must be one of {', '.join(boundaries.BOUNDARIES)}"
        case "checksum":
            return _wrong_names([value])
        case "alphabet":
            return patterns.wrong_alphabet(value)
        case "pattern":
            return patterns.wrong_pattern(value) or patterns.wrong_pattern(patterns.bounded(value))
        case "gate" | "until":
            return patterns.wrong_pattern(value)
        case _:
            return None


def _wrong_names(names: list[str]) -> str | None:
    unknown = [name for name in names if name not in validators.VALIDATORS]
    return f"names no validator: {', '.join(unknown)}" if unknown else None


def _wrong_patterns(values: list[str]) -> str | None:
    return next((wrong for value in values if (wrong := patterns.wrong_pattern(value))), None)
