"""The family of a model, by its name: limits are facts of families, not of dated releases.

    ft:gpt-4o-mini-2024-07-18:org::id -> gpt-4o-mini-2024-07-18 -> gpt-4o-mini-2024-07 -> .. -> gpt-4o-mini -> gpt-4o

Rule of the file: only whole segments are removed from the end, so `gpt-4.1` and `gpt-4o` never match `gpt-4`.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

Fact = TypeVar("Fact")

_VERSION = re.compile("[:@]")
_MAX_NAME = 256


def base_name(model: str) -> str:
    """Return the name without provider, fine-tuning or version tag, in lower case."""
    name = model[:_MAX_NAME].lower().rpartition("/")[2]
    return _VERSION.split(name.removeprefix("ft:"), maxsplit=1)[0]


def of_family(model: str | None, table: Mapping[str, Fact]) -> Fact | None:
    """Return the entry of `table` for the closest family of `model`; `None` without one."""
    name = base_name(model) if model else ""
    while name:
        if (fact := table.get(name)) is not None:
            return fact
        name = name.rpartition("-")[0]
    return None
