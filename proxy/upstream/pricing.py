"""What a call costs: a flat table of list prices, exact integer arithmetic.

Rules of the file: money is integer nano-dollars; there are no floats and only one rounding, half up, at the end of a
call. The detail counts of `Usage` are parts of its totals: each part is subtracted from the total before the rest is
priced, so nothing is charged twice, and parts that exceed their total are reduced to it. A class without its own price
costs as much as its total. Parts may overlap (cached audio): what a provider tells of that is priced as cached alone,
and otherwise cached tokens are subtracted first.

Names are resolved by rules, never by similarity; the first name in the table wins:

    model as it is, then in lower case
    without its date: -2024-08-06, -20240806, @20240806
    ft:base:org::id       -> ft:base, then base, each also without its date
    provider/model        -> model, each also without its date

A row `model@tier` has the prices that a service tier has instead; what it leaves out costs as the model. It is found
under the same names as long as their rows are equal. A tier without a row costs as the model or, if it is a dearer one,
`_DEARER` times that, and counts as not priced.

Failure mode: a model without a row, or usage in a unit that its row does not price, is not `priced`; the settings
decide its cost. An invalid table is rejected as a whole, with every mistake.

Source: OpenAI API reference, "Usage"; docs/prices.md for the table's origin.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import yaml

from proxy import resources
from proxy.config import schema
from proxy.config.files import read_regular
from proxy.exchange import Usage

NANOS = 1_000_000_000
PER_TOKENS = 1_000_000
"""Token prices are per this many tokens."""
HIGHEST_PRICE = Decimal(1_000_000)
"""Dollars; a higher price is most likely a misplaced decimal point."""

DATE = re.compile(r"(-20\d\d-[01]\d-[0-3]\d|-20\d\d[01]\d[0-3]\d|@20\d\d-?[01]\d-?[0-3]\d)$")
MAX_NAME = 256
"""Longer names cannot be models: they are not looked up, so that they cannot fill the cache."""
MAX_REMEMBERED = 4096
TIERS = {"flex": "flex", "batch": "batch", "priority": "priority", "fast": "priority"}
"""Tiers with prices of their own -> the name in the table. Others are the standard tier, or a contract's."""
_DEARER_TIERS = frozenset({"priority"})
_DEARER = (5, 2)
"""The highest ratio of a priority price to the standard price in the default table."""
_MOST_BYTES = 4_194_304
"""A larger file is no price table; the shipped one is 60 KB."""


_NO_TIERS: Mapping[str, Mapping[str, "Row"]] = MappingProxyType({})


class PriceTableError(ValueError):
    """An unusable price table; the text lists every mistake, one per line."""


@dataclass(frozen=True, slots=True)
class Row:
    """Prices of one model in nano-dollars: per million tokens, per hour of audio, per image."""

    input: int
    cached_input: int
    cache_write: int
    audio_input: int
    image_input: int
    output: int
    audio_output: int
    image_output: int
    per_hour: int | None
    per_image: int | None
    _highest_prices: tuple[tuple[int, int], tuple[int, int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sent = max(self.input, self.cached_input, self.cache_write)
        sent_at_all = max(sent, self.audio_input, self.image_input)
        made_at_all = max(self.output, self.audio_output, self.image_output)
        object.__setattr__(self, "_highest_prices", ((sent, self.output), (sent_at_all, made_at_all)))

    @classmethod
    def from_nanos(cls, prices: Mapping[str, int]) -> Self:
        """Build a row; classes without their own price inherit that of their total."""
        total_in, total_out = prices.get("input", 0), prices.get("output", 0)
        return cls(
            input=total_in,
            cached_input=prices.get("cached_input", total_in),
            cache_write=prices.get("cache_write", total_in),
            audio_input=prices.get("audio_input", total_in),
            image_input=prices.get("image_input", total_in),
            output=total_out,
            audio_output=prices.get("audio_output", total_out),
            image_output=prices.get("image_output", total_out),
            per_hour=prices.get("per_hour"),
            per_image=prices.get("per_image"),
        )

    def dearer(self) -> Self:
        """Return the row with all prices raised by `_DEARER`."""
        raised = {name: getattr(self, name) for name in schema.PRICE_CLASSES}
        up, down = _DEARER
        return self.from_nanos({name: -(-nanos * up // down) for name, nanos in raised.items() if nanos is not None})

    def highest_prices(self, media: bool) -> tuple[int, int]:
        """Return the highest prices of input and output tokens; `media`: of tokens other than text as well."""
        return self._highest_prices[media]

    def covers(self, usage: Usage) -> bool:
        """Tell whether the row prices this usage: duration and images may accompany tokens, or come alone."""
        if usage.input_tokens or usage.output_tokens:
            return True
        return not (usage.audio_seconds and self.per_hour is None) and not (usage.images and self.per_image is None)

    def cost(self, usage: Usage) -> int:
        """Return the nano-dollars of `usage`, rounded half up."""
        if not (usage.cached_input_tokens or usage.cache_write_tokens or usage.has_media):
            # Most calls: takes a third of the time of subtracting absent parts (timeit).
            sent = usage.input_tokens if usage.input_tokens > 0 else 0
            made = usage.output_tokens if usage.output_tokens > 0 else 0
            return _half_up(sent * self.input + made * self.output, PER_TOKENS)
        micros = _share(
            usage.input_tokens,
            self.input,
            (usage.cached_input_tokens, self.cached_input),
            (usage.cache_write_tokens, self.cache_write),
            (usage.audio_input_tokens - usage.cached_audio_tokens, self.audio_input),
            (usage.image_input_tokens - usage.cached_image_tokens, self.image_input),
        ) + _share(
            usage.output_tokens,
            self.output,
            (usage.audio_output_tokens, self.audio_output),
            (usage.image_output_tokens, self.image_output),
        )
        if usage.images > 0 and self.per_image is not None:
            micros += usage.images * self.per_image * PER_TOKENS
        if usage.audio_seconds > 0 and self.per_hour is not None and math.isfinite(usage.audio_seconds):
            numerator, denominator = usage.audio_seconds.as_integer_ratio()
            seconds_per_hour = 3600 * denominator
            return _half_up(
                micros * seconds_per_hour + numerator * self.per_hour * PER_TOKENS, PER_TOKENS * seconds_per_hour
            )
        return _half_up(micros, PER_TOKENS)


class PriceTable:
    """The price table in force. Immutable except for a bounded cache of resolved names; shared by all requests."""

    def __init__(
        self, rows: Mapping[str, Row], settings: schema.Prices, tiers: Mapping[str, Mapping[str, Row]] = _NO_TIERS
    ) -> None:
        self._rows = rows
        self._tiers = {tier: TierPrices(self, tier, tiers.get(name, {})) for tier, name in TIERS.items()}
        self._unknown = None
        if settings.unknown_model != "free":
            mistakes: list[str] = []
            self._unknown = Row.from_nanos(_read_prices("prices.unknown_price", settings.unknown_price, mistakes))
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

    def price(self, model: str | None, usage: Usage) -> tuple[int, bool]:
        """Return the cost in nano-dollars, and whether the table priced it.

        False: there is no price for this model or this kind of usage, and `prices.unknown_model` decided the cost.
        About 0.8 microseconds (bench/wire_format.py).
        """
        row = self.find(model)
        if row is not None and row.covers(usage):
            return row.cost(usage), True
        return (self._unknown.cost(usage) if self._unknown is not None else 0), False

    def highest_prices(self, model: str | None, *, media: bool) -> tuple[int, int]:
        """Return nano-dollars per million input and output tokens, each of the most expensive class a call may use.

        `media`: it may use audio and images. Upper bounds of what `price` charges per token.
        """
        row = self.find(model) or self._unknown
        return row.highest_prices(media) if row is not None else (0, 0)

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

    def price(self, model: str | None, usage: Usage) -> tuple[int, bool]:
        """Return what `PriceTable.price` does; False also for a dearer tier whose price is not known."""
        row = self._find(model)
        if row is not None and row.covers(usage):
            return row.cost(usage), True
        standard = self._table.find(model)
        if not self._is_dearer or standard is None or not standard.covers(usage):
            return self._table.price(model, usage)
        return standard.dearer().cost(usage), False

    def highest_prices(self, model: str | None, *, media: bool) -> tuple[int, int]:
        """Return upper bounds as `PriceTable` does: the provider may process the request in the standard tier."""
        sent, made = self._table.highest_prices(model, media=media)
        row = self._find(model)
        if row is None and self._is_dearer and (standard := self._table.find(model)) is not None:
            row = standard.dearer()
        if row is None:
            return sent, made
        tier_sent, tier_made = row.highest_prices(media)
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

    An override replaces single prices of a row and keeps the others. Takes some 25 ms for the default table.

    Raises:
        PriceTableError: the file cannot be read, is not a price table, or has a negative or inexact price.
    """
    source = path or resources.ROOT / "config" / "prices.yaml"
    mistakes: list[str] = []
    table: dict[str, dict[str, int]] = {}
    for name, prices in [*_read_file(source).items(), *settings.overrides.items()]:
        where = f"prices of {name!r}"
        table.setdefault(str(name).lower(), {}).update(_read_prices(where, prices, mistakes))
    tiers: dict[str, dict[str, Row]] = {}
    for name in [name for name in table if name.rpartition("@")[2] in TIERS.values()]:
        model, _, tier = name.rpartition("@")
        prices = table.pop(name)
        if model not in table:
            mistakes.append(f"prices of {name!r}: {model!r} has no prices of its own")
        else:
            tiers.setdefault(tier, {})[model] = Row.from_nanos({**table[model], **prices})
    _refuse(mistakes)
    return PriceTable({name: Row.from_nanos(prices) for name, prices in table.items()}, settings, tiers)


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


def _share(total: int, price: int, *parts: tuple[int, int]) -> int:
    """Return the sum of tokens times price; every part is limited to what the previous ones left of `total`."""
    rest = total if total > 0 else 0
    amount = 0
    for tokens, part_price in parts:
        if tokens > 0:
            taken = tokens if tokens < rest else rest
            rest -= taken
            amount += taken * part_price
    return amount + rest * price


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        text = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise PriceTableError(f"{path}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise PriceTableError(f"{path}: is larger than {_MOST_BYTES} bytes")
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise PriceTableError(f"{path}: not YAML: {error}") from error
    if not isinstance(document, dict):
        raise PriceTableError(f"{path}: must map model names to prices")
    return document


def _read_prices(where: str, prices: object, mistakes: list[str]) -> dict[str, int]:
    """Return nano-dollars by class; appends problems to `mistakes`."""
    if not isinstance(prices, Mapping) or not prices:
        mistakes.append(f"{where}: must map input, output ... to dollars")
        return {}
    read: dict[str, int] = {}
    for unit, value in prices.items():
        if unit not in schema.PRICE_CLASSES:
            mistakes.append(f"{where}: {unit!r} is not one of {', '.join(schema.PRICE_CLASSES)}")
            continue
        try:
            read[unit] = _to_nanos(value)
        except ValueError as error:
            mistakes.append(f"{where}: {unit}: {error}")
    return read


def _to_nanos(value: object) -> int:
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


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise PriceTableError("\n".join(mistakes))
