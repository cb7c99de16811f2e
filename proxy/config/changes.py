"""Compares two versions of the configuration: what changed, what cannot change now, and an identifier for each version.

Rule of the file: keys are named, values never, not even as a hash: secrets and configured headers are excluded from it,
as a short one could be found by trying.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any, Final

import orjson

from proxy.config.keys import KEYS
from proxy.config.load import Loaded
from proxy.config.problems import KeyPath, Origin, Problem
from proxy.config.schema import Config

FIXED: Final[tuple[KeyPath, ...]] = (
    ("data_dir",),
    ("server", "listen"),
    ("server", "ops_listen"),
    ("server", "uvloop"),
    ("server", "kind"),
    ("server", "reuse_port"),
    ("cache",),
    ("database",),
    ("journal",),
    ("projects", "max_projects"),
)
"""What the process depends on: addresses, files, the pool. A section stands for all its keys."""
_SECRETS: Final[dict[str, Any]] = {
    "admin_key": True,
    "upstream": {"headers"},
    "upstreams": {"__all__": {"headers"}},
    "otel": {"headers"},
}


def fallen_back(running: Loaded, wanted: Loaded) -> Iterator[Problem]:
    """Yield why `wanted` must not follow `running`, though it is valid: it is what a file leaves that was cut.

    A file that is emptied before it is written, or lost, would take `auth.mode: keys` and the provider along.
    """
    origin = Origin("file", str(wanted.path)) if wanted.path else Origin("default")
    if _sets_something(running) and wanted.path is not None and not _sets_something(wanted):
        yield Problem(origin, "", "sets nothing any more, as a file that was cut; to run on the defaults, restart")
    if wanted.demo and not running.demo:
        yield Problem(origin, "", "names no provider any more; to get answers from the demo upstream, restart")


def _sets_something(loaded: Loaded) -> bool:
    return any(origin.kind == "file" for origin in loaded.origins.values())


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Return the keys whose values differ."""
    return tuple(key.name for key in KEYS.values() if _value(old, key.path) != _value(new, key.path))


def is_fixed(name: str) -> bool:
    """Tell whether a key keeps its value while the process runs."""
    path = tuple(name.split("."))
    return any(path[: len(fixed)] == fixed for fixed in FIXED)


def as_far_as_possible(running: Config, wanted: Config) -> Config:
    """Return `wanted` with the values of `running` for everything that cannot change now."""
    for path in FIXED:
        wanted = _with(wanted, path, _value(running, path))
    return wanted


def version(config: Config, digests: Mapping[str, str]) -> str:
    """Return the identifier of a version: equal for replicas with the same settings and files, whatever their secrets.

    `digests`: by key, of the files that the configuration names.
    """
    plain = config.model_dump(mode="json", exclude=_SECRETS)
    document = orjson.dumps([plain, dict(digests)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(document).hexdigest()[:12]


def _value(config: Any, path: KeyPath) -> Any:
    return reduce(getattr, path, config)


def _with(section: Any, path: KeyPath, value: Any) -> Any:
    name, *rest = path
    if rest:
        value = _with(getattr(section, name), tuple(rest), value)
    return section.model_copy(update={name: value})
