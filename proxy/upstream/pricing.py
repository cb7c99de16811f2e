"""What a call costs: a flat table of list prices, exact integer arithmetic.

Rules of the file: money is integer nano-dollars; there are no floats (`price_row` says how a row prices usage).

Names are resolved by rules, never by similarity; the first name in the table wins:

    model as it is, then in lower case
    without its date: -2024-08-06, -20240806, @20240806
    ft:base:org::id       -> ft:base, then base, each also without its date
    provider/model        -> model, each also without its date

A row `model@tier` has the prices that a service tier has instead; what it leaves out costs as the model. It is found
under the same names as long as their rows are equal. A tier without a row costs as the model or, if it is a dearer one,
two and a half times that, and counts as not priced.

A row `model>272000` has the prices of a call, all of it, whose input has more tokens. They follow the price of a tier
and of the settings in proportion; releases that cost the same share them.

Failure mode: a model without a row, or usage in a unit that its row does not price, is not `priced`; the settings
decide its cost. An invalid table is rejected as a whole, with every mistake.

Source: OpenAI API reference, "Usage"; docs/prices.md for the table's origin.
"""

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from proxy import resources
from proxy.config import schema
from proxy.config.names import did_you_mean, nearest, shown
from proxy.exchange import Usage
from proxy.upstream.price_file import TIERS, misspelt, read_file, read_prices
from proxy.upstream.price_file import PriceTableError as PriceTableError
from proxy.upstream.price_row import PER_TOKENS as PER_TOKENS
from proxy.upstream.price_row import Row as Row

DATE = re.compile(r"(-20\d\d-[01]\d-[0-3]\d|-20\d\d[01]\d[0-3]\d|@20\d\d-?[01]\d-?[0-3]\d)$")
MAX_NAME = 256
"""Longer names cannot be models: they are not looked up, so that they cannot fill the cache."""
MAX_REMEMBERED = 4096
_DEARER_TIERS = frozenset({"priority"})
_OF_A_CALL = frozenset({"input", "per_hour", "per_image"})
"""Without one of these, what is sent would be free."""
_NO_TIERS: Mapping[str, Mapping[str, Row]] = MappingProxyType({})
_Long = tuple[int, Mapping[str, tuple[int, int]]]
"""Above how many tokens of input a model costs more, and by class the price then and the one below."""


class PriceTable:
    """The price table in force. Immutable except for a bounded cache of resolved names; shared by all requests."""

    def __init__(
        self,
        rows: Mapping[str, Row],
        settings: schema.Prices,
        tiers: Mapping[str, Mapping[str, Row]] = _NO_TIERS,
        own: Container[str] = (),
    ) -> None:
        self._rows = rows
        self._own = own
        self._tiers = {tier: TierPrices(self, tier, tiers.get(name, {})) for tier, name in TIERS.items()}
        self._unknown = None
        if settings.unknown_model != "free":
            mistakes: list[str] = []
            self._unknown = Row.from_nanos(read_prices("prices.unknown_price", settings.unknown_price, mistakes))
            _refuse(mistakes)
        self._remembered: dict[str, Row | None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, tier: str | None) -> "PriceTable | TierPrices":
        """Return the prices of a service tier, as answers and requests name it."""
        return self if tier is None else self._tiers.get(tier, self)

    def knows(self, model: str | None) -> bool:
        """Tell whether `model` has a price; the caller decides what to do if it has none."""
        return self.find(model) is not None

    def is_own(self, model: str) -> bool:
        """Tell whether exactly this name has a price in the settings."""
        return model.lower() in self._own

    def price(self, model: str | None, usage: Usage, largest_input: int | None = None) -> tuple[int, bool]:
        """Return the cost in nano-dollars, and whether the table priced it.

        `largest_input`: tokens of the largest call, if `usage` is the sum of several: then all of it costs as that.
        False: there is no price for this model or this kind of usage, and `prices.unknown_model` decided the cost.
        About 0.8 microseconds (bench/wire_format.py).
        """
        row = self.find(model)
        if row is not None and row.covers(usage):
            return row.cost(usage, largest_input), True
        return (self._unknown.cost(usage) if self._unknown is not None else 0), False

    def highest_prices(self, model: str | None, *, media: bool, input_tokens: int | None = None) -> tuple[int, int]:
        """Return nano-dollars per million input and output tokens, each of the most expensive class a call may use.

        `media`: it may use audio and images. `input_tokens`: at most; `None`: not known. Upper bounds of what `price`
        charges per token.
        """
        row = self.find(model) or self._unknown
        return row.highest_prices(media, input_tokens) if row is not None else (0, 0)

    def row(self, name: str) -> Row | None:
        """Return the row of exactly this name."""
        return self._rows.get(name)

    def find(self, model: str | None) -> Row | None:
        """Return the row of a model under any of its names."""
        if model is None:
            return None
        try:
            return self._remembered[model]
        except KeyError:
            if len(model) > MAX_NAME:
                return None
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        row = next((self._rows[name] for name in candidate_names(model) if name in self._rows), None)
        self._remembered[model] = row
        return row


class TierPrices:
    """The prices of one service tier: `rows` first, the table for what they lack. `PriceTable` in all else."""

    def __init__(self, table: PriceTable, tier: str, rows: Mapping[str, Row]) -> None:
        self._table = table
        self._rows = rows
        self._is_dearer = TIERS[tier] in _DEARER_TIERS
        self._remembered: dict[str, Row | None] = {}

    def at(self, tier: str | None) -> "PriceTable | TierPrices":
        """Return the prices of another tier."""
        return self._table.at(tier)

    def knows(self, model: str | None) -> bool:
        """Tell whether the model has a price, in whichever tier."""
        return self._table.knows(model)

    def is_own(self, model: str) -> bool:
        """Tell what `PriceTable.is_own` does."""
        return self._table.is_own(model)

    def price(self, model: str | None, usage: Usage, largest_input: int | None = None) -> tuple[int, bool]:
        """Return what `PriceTable.price` does; False also for a dearer tier whose price is not known."""
        row = self._find(model)
        if row is not None and row.covers(usage):
            return row.cost(usage, largest_input), True
        standard = self._table.find(model)
        if not self._is_dearer or standard is None or not standard.covers(usage):
            return self._table.price(model, usage, largest_input)
        return standard.dearer().cost(usage, largest_input), False

    def highest_prices(self, model: str | None, *, media: bool, input_tokens: int | None = None) -> tuple[int, int]:
        """Return upper bounds as `PriceTable` does: the provider may process the request in the standard tier."""
        sent, made = self._table.highest_prices(model, media=media, input_tokens=input_tokens)
        row = self._find(model)
        if row is None and self._is_dearer and (standard := self._table.find(model)) is not None:
            row = standard.dearer()
        if row is None:
            return sent, made
        tier_sent, tier_made = row.highest_prices(media, input_tokens)
        return max(sent, tier_sent), max(made, tier_made)

    def _find(self, model: str | None) -> Row | None:
        if model is None or (standard := self._table.find(model)) is None:
            return None
        try:
            return self._remembered[model]
        except KeyError:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
        names = [name for name in candidate_names(model) if self._table.row(name) in (None, standard)]
        row = next((self._rows[name] for name in names if name in self._rows), None)
        self._remembered[model] = row
        return row


def load(path: Path | None, settings: schema.Prices) -> PriceTable:
    """Read the table at `path`, or the default one, and apply `settings.overrides` to it.

    An override replaces single prices of a row and of releases of the model that cost the same, and keeps the others.
    Takes some 25 ms for the default table.

    Raises:
        PriceTableError: the file cannot be read, is not a price table, or has a negative or inexact price.
    """
    source = path or resources.ROOT / "config" / "prices.yaml"
    mistakes: list[str] = []
    table: dict[str, dict[str, int]] = {}
    for name, prices in read_file(source, mistakes).items():
        table.setdefault(str(name).lower(), {}).update(read_prices(f"prices of {name!r}", prices, mistakes))
    own = _read_own(settings, table, mistakes)
    known = {**table, **own}
    mistakes += [f"prices of {name!r}: {problem}" for name in known for problem in misspelt(name, known)]
    releases = _releases(table)
    longs = _take_longs(table, releases, mistakes)
    for name, prices in own.items():
        for same in [name, *(one for one in _alike(name, table, releases) if one not in own)]:
            table.setdefault(same, {}).update(prices)
    tiers: dict[str, dict[str, Row]] = {}
    for name in [name for name in table if name.rpartition("@")[2] in TIERS.values()]:
        model, _, tier = name.rpartition("@")
        prices = table.pop(name)
        if model not in table:
            mistakes.append(f"prices of {name!r}: {model!r} has no prices of its own")
        else:
            tiers.setdefault(tier, {})[model] = _row({**table[model], **prices}, longs.get(model))
    _refuse(mistakes)
    rows = {name: _row(prices, longs.get(name)) for name, prices in table.items()}
    return PriceTable(rows, settings, tiers, frozenset(own))


def _read_own(settings: schema.Prices, table: Mapping[str, object], mistakes: list[str]) -> dict[str, dict[str, int]]:
    own: dict[str, dict[str, int]] = {}
    for name, given in settings.overrides.items():
        where, lower = f"prices of {shown(name)!r}", name.lower()
        if lower in own:
            mistakes.append(f"{where}: is there twice; case does not matter")
        prices = own[lower] = read_prices(where, given, mistakes)
        if ">" in name:
            mistakes.append(f"{where}: these follow from those of the model; leave them out")
        elif prices and lower not in table and "@" not in name and not prices.keys() & _OF_A_CALL:
            meant = did_you_mean(nearest(lower, table))
            mistakes.append(f"{where}: a model of your own needs a price of input, if only 0{meant}")
    return own


def _take_longs(
    table: dict[str, dict[str, int]], releases: Mapping[str, list[str]], mistakes: list[str]
) -> dict[str, _Long]:
    """Remove the rows `model>tokens`; return them for each model and its releases that the table lists at its price."""
    longs: dict[str, _Long] = {}
    seen: set[str] = set()
    for name in [name for name in table if ">" in name]:
        model, _, above = name.partition(">")
        prices, listed = table.pop(name), table.get(model)
        if listed is None or not above.isdecimal():
            mistakes.append(f"prices of {name!r}: must be of a model with prices of its own, above a number of tokens")
            continue
        if model in seen:
            mistakes.append(f"prices of {name!r}: {model!r} has such a row already; only one length can count")
        seen.add(model)
        if missing := [unit for unit in prices if not listed.get(unit)]:
            mistakes.append(f"prices of {name!r}: {model!r} has no price of {', '.join(missing)} that this could raise")
        ratios = {unit: (nanos, listed[unit]) for unit, nanos in prices.items() if listed.get(unit)}
        longs.update(dict.fromkeys([model, *_alike(model, table, releases)], (int(above), ratios)))
    return longs


def _row(prices: Mapping[str, int], long: _Long | None) -> Row:
    """Return the row of a model or a tier; what it costs above some length of input is raised as listed, rounded up."""
    if long is None:
        return Row.from_nanos(prices)
    above, ratios = long
    raised = dict(prices)
    for unit, (then, below) in ratios.items():
        if unit in prices:
            raised[unit] = -(-prices[unit] * then // below)
    return replace(Row.from_nanos(prices), long_above=above, long=Row.from_nanos(raised))


def _alike(name: str, table: Mapping[str, Mapping[str, int]], releases: Mapping[str, list[str]]) -> list[str]:
    """Return the releases of a model that the table lists at its price: providers answer under those names."""
    return [dated for dated in releases.get(name, ()) if table[dated] == table.get(name)]


def _releases(table: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the dated names of each model. Once for all of them: to look at every row for each takes 7 ms."""
    releases: dict[str, list[str]] = {}
    for name in table:
        if (model := DATE.sub("", name)) != name:
            releases.setdefault(model, []).append(name)
    return releases


def candidate_names(model: str) -> Iterator[str]:
    """Yield the names under which `model` may be in the table, most specific first. Table names are lower case."""
    name = model.lower()
    yield from _dated_and_bare(name)
    if name.startswith("ft:"):
        base = name.split(":", 2)[1]
        yield from _dated_and_bare(f"ft:{base}")
        yield from _dated_and_bare(base)
    while "/" in name:
        name = name.partition("/")[2]
        yield from _dated_and_bare(name)


def _dated_and_bare(name: str) -> tuple[str, str]:
    return name, DATE.sub("", name)


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise PriceTableError("\n".join(mistakes))
