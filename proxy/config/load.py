"""Turns file, environment and flags into one validated, immutable `Config`, or reports every mistake at once.

    defaults  <  file  <  environment  <  flags        key by key, the rightmost that is set wins
         '---------.-----------'
              references (${NAME}, file:/path) -> types -> ranges -> Config + where each key came from

Rule of the file: this is the only place that reads the process environment. Settings are passed to everything else
through constructors. Failure mode: nothing is guessed or skipped; a configuration with one mistake is refused as a
whole.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from proxy.config.advice import advise
from proxy.config.document import yaml_value
from proxy.config.environment import CONFIG_VARIABLE, read_environment, read_flags
from proxy.config.keys import KEYS, Key
from proxy.config.names import MOST_GUESSED, did_you_mean, nearest
from proxy.config.problems import ConfigError, KeyPath, Layer, Origin, Problem, Setting
from proxy.config.references import BadReference, is_meant_as_reference, is_reference, named_file, resolve
from proxy.config.schema import Config, UpstreamEntry
from proxy.config.source import read_file, scalar

_DEFAULT: Final = Origin("default")

_WORDING: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = MappingProxyType(
    {
        "greater_than": lambda ctx: f"must be greater than {yaml_value(ctx['gt'])}",
        "greater_than_equal": lambda ctx: f"must be at least {yaml_value(ctx['ge'])}",
        "less_than": lambda ctx: f"must be less than {yaml_value(ctx['lt'])}",
        "less_than_equal": lambda ctx: f"must be at most {yaml_value(ctx['le'])}",
        "string_too_short": lambda ctx: f"must have at least {ctx['min_length']} characters",
        "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
        "string_pattern_mismatch": lambda ctx: f"must match {ctx['pattern']}",
        "string_type": lambda ctx: "must be text; put it in quotes",
        "value_error": lambda ctx: str(ctx["error"]),
        "model_type": lambda ctx: "must be a mapping of keys to values",
        "missing": lambda ctx: "is missing",
        "too_long": lambda ctx: f"must have at most {ctx['max_length']} entries",
    }
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration, and where it came from."""

    config: Config
    demo: bool
    """Neither a provider key nor a base URL was given, so the demo upstream answers."""
    origins: Mapping[KeyPath, Origin]
    """Who set each key; every key of the schema is present."""
    warnings: tuple[Problem, ...]
    """Legal, but probably not intended."""
    path: Path | None
    """The file that was read."""
    files: tuple[Path, ...]
    """Every file that was read: that one, and those with secrets."""


def load_from_process(path: Path | None = None, overrides: Mapping[str, str] | None = None) -> Loaded:
    """Load with the environment of this process. `overrides`: flags with their dashes, as `load` takes them."""
    return load(path, os.environ, overrides or {})


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Loaded:
    """Load the configuration from `path` (else from the file SIDEGATE_CONFIG names, else from none) and the overlays.

    Raises:
        ConfigError: it cannot be used; holds every mistake found.
    """
    named = environ.get(CONFIG_VARIABLE, "").strip()
    path = path or (Path(named) if named else None)
    layers = [read_file(path) if path else Layer(), read_environment(environ), read_flags(overrides)]
    problems = [problem for layer in layers for problem in layer.problems]
    lines = layers[0].lines
    settings = {key: setting for layer in layers for key, setting in layer.settings.items()}
    values, found = _settle(settings, lines, environ)
    problems += found
    config = _validate(values, settings, lines, problems)
    files = (*((path,) if path else ()), *_named_files(settings))
    if config is None or problems:
        raise ConfigError(_in_order(problems), files)
    origins = {key: settings[key].origin if key in settings else _DEFAULT for key in KEYS}
    return Loaded(
        config=config,
        demo=config.upstream.api_key is None and origins["upstream", "base_url"] == _DEFAULT and not config.upstreams,
        origins=MappingProxyType(origins),
        warnings=tuple(_literal_secrets(settings)) + tuple(advise(config, origins)),
        path=path,
        files=files,
    )


def _named_files(settings: Mapping[KeyPath, Setting]) -> Iterator[Path]:
    """Yield the files that references point to."""
    values = [setting.value for path, setting in settings.items() if KEYS[path].hidden]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and (file := named_file(value)) is not None:
            yield file


def _settle(
    settings: Mapping[KeyPath, Setting], lines: Mapping[KeyPath, int], environ: Mapping[str, str]
) -> tuple[dict[KeyPath, Any], list[Problem]]:
    """Return the values that have the right type, references resolved, and what is wrong with the others."""
    values: dict[KeyPath, Any] = {}
    problems: list[Problem] = []
    for path, setting in settings.items():
        key = KEYS[path]
        if setting.value is None and key.optional:
            values[path] = None
        elif not key.fits(setting.value):
            problems.append(Problem(setting.origin, key.name, _misfit(key, setting.value)))
        elif key.hidden:
            values[path] = _dereference(key, setting, lines, environ, problems)
        elif isinstance(setting.value, str) and is_meant_as_reference(setting.value):
            problems.append(
                Problem(setting.origin, key.name, "takes no reference, as only secrets do; write the value")
            )
        else:
            values[path] = setting.value
    return values, problems


def _misfit(key: Key, value: object) -> str:
    if value is None:
        return f"has no value; {key.expectation()}, or leave the line out for the default"
    if isinstance(value, str) and key.kind in ("integer", "number") and key.fits(scalar(value)):
        return "must be a number without quotes"
    guess = nearest(value, key.choices) if isinstance(value, str) else None
    return f"{key.expectation()}{did_you_mean(guess)}"


def _dereference(
    key: Key, setting: Setting, lines: Mapping[KeyPath, int], environ: Mapping[str, str], problems: list[Problem]
) -> Any:
    def resolved(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {name: resolved(inner, (*path, name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [resolved(inner, (*path, str(number))) for number, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            return resolve(value, environ)
        except BadReference as error:
            problems.append(Problem(_locate(path, setting.origin, lines), ".".join(path), str(error)))
            return key.default if path == key.path else "unresolved"

    return resolved(setting.value, key.path)


def _validate(
    values: Mapping[KeyPath, Any],
    settings: Mapping[KeyPath, Setting],
    lines: Mapping[KeyPath, int],
    problems: list[Problem],
) -> Config | None:
    """Build the configuration from defaults and values; add what the schema refuses to `problems`."""
    document: dict[str, Any] = {}
    for path, key in KEYS.items():
        section = document
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = values.get(path, key.default)
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        names = tuple(str(part) for part in detail["loc"] if part != "[key]")
        owner = next(names[:end] for end in range(1, len(names) + 1) if names[:end] in KEYS)
        origin = settings[owner].origin if owner in settings else _DEFAULT
        guesses = len(problems) < MOST_GUESSED
        problems.append(Problem(_locate(names, origin, lines), ".".join(names), _word(detail, guesses=guesses)))
    return None


def _word(detail: Any, *, guesses: bool) -> str:
    """Return our wording for a mistake that pydantic found. Neither contains the value."""
    if detail["type"] == "extra_forbidden":
        guess = nearest(str(detail["loc"][-1]), UpstreamEntry.model_fields) if guesses else None
        return f"unknown key{did_you_mean(guess)}"
    wording = _WORDING.get(detail["type"])
    if wording:
        return wording(detail["ctx"] if "ctx" in detail else {})
    message: str = detail["msg"]
    return message[:1].lower() + message[1:]


def _locate(path: KeyPath, origin: Origin, lines: Mapping[KeyPath, int]) -> Origin:
    """Return `origin` with the line of the innermost part of `path` that has one."""
    if origin.kind != "file":
        return origin
    known = (lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines)
    return Origin("file", origin.name, next(known, origin.line))


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Sort by source and line, in reading order; duplicates are removed."""
    rank = {"default": 0, "file": 1, "environment": 2, "flag": 3}
    unique = {str(problem): problem for problem in problems}.values()
    return sorted(unique, key=lambda problem: (rank[problem.origin.kind], problem.origin.line))


def _literal_secrets(settings: Mapping[KeyPath, Setting]) -> Iterator[Problem]:
    listed = settings.get(("upstreams",))
    if listed is not None and listed.origin.kind == "file" and isinstance(listed.value, list):
        for entry in listed.value:
            keys = [entry, *(entry.get("credentials") or ())]
            if any(not is_reference(key["api_key"]) for key in keys if key.get("api_key")):
                text = f"a key of {entry.get('name', 'default')} stands in the file itself; use ${{NAME}} or file:/path"
                yield Problem(listed.origin, "upstreams", text)
    for path, setting in settings.items():
        if KEYS[path].kind != "secret" or setting.origin.kind != "file" or setting.value is None:
            continue
        if not is_reference(setting.value):
            text = "the secret itself stands in the file; use ${NAME} or file:/path"
            yield Problem(setting.origin, KEYS[path].name, text)
