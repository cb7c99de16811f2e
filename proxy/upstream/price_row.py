"""What one model costs: a row of the price table, exact integer arithmetic.

Rules of the file: money is integer nano-dollars; there are no floats and only one rounding, half up, at the end of a
call. The detail counts of `Usage` are parts of its totals: each part is subtracted from the total before the rest is
priced, so nothing is charged twice, and parts that exceed their total are reduced to it. A class without its own price
costs as much as its total. Parts may overlap (cached audio): what a provider tells of that is priced as cached alone,
and otherwise cached tokens are subtracted first. Where a model costs more above some length of its input, all of such a
call does.

Source: OpenAI API reference, "Usage"; the price lists of OpenAI, Anthropic and Google for long inputs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from proxy.config import schema
from proxy.exchange import Usage

PER_TOKENS = 1_000_000
"""Token prices are per this many tokens."""
_DEARER = (5, 2)
"""The highest ratio of a priority price to the standard price in the default table."""


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
    long_above: int = 0
    long: "Row | None" = None
    """What a call costs whose input has more than `long_above` tokens; `None`: the same."""
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
        row = self.from_nanos({name: -(-nanos * up // down) for name, nanos in raised.items() if nanos is not None})
        return row if self.long is None else replace(row, long_above=self.long_above, long=self.long.dearer())

    def highest_prices(self, media: bool, input_tokens: int | None = None) -> tuple[int, int]:
        """Return the highest prices of input and output tokens; `media`: of tokens other than text as well.

        `input_tokens`: of the call, at most; `None`: not known.
        """
        if self.long is not None and (input_tokens is None or input_tokens > self.long_above):
            return self.long.highest_prices(media)
        return self._highest_prices[media]

    def covers(self, usage: Usage) -> bool:
        """Tell whether the row prices this usage: duration and images may accompany tokens, or come alone."""
        if usage.input_tokens or usage.output_tokens:
            return True
        return not (usage.audio_seconds and self.per_hour is None) and not (usage.images and self.per_image is None)

    def cost(self, usage: Usage, largest_input: int | None = None) -> int:
        """Return the nano-dollars of `usage`, rounded half up. `largest_input`: of its calls, if it is a sum."""
        if self.long is not None:
            longest = usage.input_tokens if largest_input is None else largest_input
            if longest > self.long_above:
                return self.long.cost(usage)
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
