"""Reads a file of prices: names of models and their rows, as somebody may have written them.

Rules of the file: nothing is guessed and nothing ignored; a row that could not have an effect is a mistake, and every
mistake is told at once, with its row and what to write instead.

Source: docs/prices.md.
"""

import re
from collections.abc import Container, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import yaml

from proxy.config import schema
from proxy.config.files import read_regular
from proxy.config.names import did_you_mean, nearest, shown

NANOS = 1_000_000_000
HIGHEST_PRICE = Decimal(1_000_000)
"""Dollars; a higher price is most likely a misplaced decimal point."""
TIERS: Final[Mapping[str, str]] = MappingProxyType(
    {"flex": "flex", "batch": "batch", "priority": "priority", "fast": "priority"}
)
"""Tiers with prices of their own -> the name in the table. Others are the standard tier, or a contract's."""
_RELEASE = re.compile(r"\d")
"""How the part of a name begins that is a release, not a tier: `mistral-large@2407`."""
_MERGE = "tag:yaml.org,2002:merge"
_MOST_BYTES = 4_194_304
"""A larger file is no price table; the shipped one is 60 KB."""


class PriceTableError(ValueError):
    """An unusable price table; the text lists every mistake, one per line."""


def read_file(path: Path, mistakes: list[str]) -> Mapping[str, Any]:
    """Return the rows of a file as written; names that are there twice, if only by case, are mistakes.

    Raises:
        PriceTableError: it cannot be read, or is not a mapping.
    """
    try:
        text = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise PriceTableError(f"{path}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise PriceTableError(f"{path}: is larger than {_MOST_BYTES} bytes")
    try:
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            repeated = list(_repeated(node))  # before what is merged (`<<`) stands beside what replaces it
            document = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise PriceTableError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise PriceTableError(f"{path}: must map model names to prices")
    mistakes += repeated
    return document


def read_prices(where: str, prices: object, mistakes: list[str]) -> dict[str, int]:
    """Return nano-dollars by class; appends problems to `mistakes`."""
    if not isinstance(prices, Mapping) or not prices:
        mistakes.append(f"{where}: must map input, output ... to dollars")
        return {}
    read: dict[str, int] = {}
    for unit, value in prices.items():
        if unit not in schema.PRICE_CLASSES:
            known = schema.PRICE_CLASSES
            meant = did_you_mean(nearest(str(unit), known))
            mistakes.append(f"{where}: {shown(str(unit))!r} is not one of {', '.join(known)}{meant}")
            continue
        try:
            read[unit] = to_nanos(value)
        except ValueError as error:
            mistakes.append(f"{where}: {unit}: {error}")
    return read


def to_nanos(value: object) -> int:
    """Return dollars as nano-dollars. A YAML float is taken as written (its shortest form)."""
    try:
        dollars = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("must be a number") from None
    if isinstance(value, bool) or not dollars.is_finite():
        raise ValueError("must be a number")
    if not 0 <= dollars <= HIGHEST_PRICE:
        raise ValueError(f"must be between 0 and {HIGHEST_PRICE} dollars")
    nanos = dollars * NANOS
    if nanos != nanos.to_integral_value():
        raise ValueError("must not have more than nine decimal places")
    return int(nanos)


def misspelt(name: str, table: Container[str]) -> Iterator[str]:
    """Yield what is wrong with the name of a row that would have no effect. `table`: the names that have prices."""
    model, at, tier = name.rpartition("@")
    if not at or model not in table:
        return
    if ">" in tier:
        yield f"a tier costs more in proportion to {model!r} above some length of input: leave this row out"
    elif tier in TIERS.values():
        return
    elif tier in TIERS:
        yield f"write {model}@{TIERS[tier]}: both are that tier"
    elif not _RELEASE.match(tier) and (meant := nearest(tier, TIERS)):
        yield f"{shown(tier)!r} is no tier; did you mean {model}@{TIERS[meant]}?"


def _repeated(node: Any) -> Iterator[str]:
    """Yield names that are there more than once: the last one would win."""
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.tag == _MERGE:
            continue
        name, line = str(key.value).lower(), key.start_mark.line + 1
        if name in lines:
            yield f"prices of {shown(name)!r}: in line {lines[name]} and in line {line}; leave one of them out"
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            units = [str(unit.value) for unit, _ in value.value if unit.tag != _MERGE]
            for unit in sorted({unit for unit in units if units.count(unit) > 1}):
                yield f"prices of {shown(name)!r}: {shown(unit)!r} is there twice"
