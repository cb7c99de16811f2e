"""The origin of a setting, and the problems of settings.

Rule of the file: a problem never contains the value it is about, so that no mistyped secret can reach a terminal or
a log. Everything that reads configuration collects problems and continues; `ConfigError` carries all of them at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

KeyPath = tuple[str, ...]
"""A key as the names from the top of the document to it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who set a key. `name`: the file, the environment variable or the flag; empty for a default."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""
    line: int = 0
    """Line of a file, starting at 1; 0 if there is none."""

    def __str__(self) -> str:
        match self.kind:
            case "file":
                return f"{self.name}:{self.line}" if self.line else self.name
            case "environment":
                return f"environment {self.name}"
            case "flag":
                return self.name
            case "default":
                return "default"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `key`: the dotted key as the user wrote it; shown only for files, a variable names itself."""

    origin: Origin
    key: str
    text: str

    def __str__(self) -> str:
        match self.origin.kind:
            case "environment":
                return f"environment: {self.origin.name}: {self.text}"
            case "flag":
                return f"{self.origin.name}: {self.text}"
            case _:
                return f"{self.origin}: {self.key}: {self.text}" if self.key else f"{self.origin}: {self.text}"


class ConfigError(Exception):
    """The configuration is invalid. `problems`: every mistake, in the order of the sources.

    `files`: what was read, or should have been; a change of one of them may fix it.
    """

    def __init__(self, problems: Iterable[Problem], files: Iterable[Path] = ()) -> None:
        self.problems = tuple(problems)
        self.files = tuple(files)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Setting:
    """One value that was set."""

    value: Any
    origin: Origin


@dataclass(slots=True)
class Layer:
    """The settings of one source: the file, the environment or the flags. A later layer wins key by key."""

    settings: dict[KeyPath, Setting] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Lines of the entries inside a mapping (header names, model prices), for exact messages."""
    problems: list[Problem] = field(default_factory=list)

    def complain(self, origin: Origin, path: KeyPath, text: str) -> None:
        """Record one mistake and continue."""
        self.problems.append(Problem(origin, ".".join(path), text))
