"""What one request holds: its part of the leases, until it is settled. Implements `exchange.Allowance`.

    reserved --settle(used)--> charged on the same leases, the rest returned     exactly once, in every case

A reservation without parts was admitted without a lease; PostgreSQL books its charge on the window of its time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from proxy.errors import ProxyError
from proxy.exchange import Meter
from proxy.nouns.holds import Bound, Hold, Share, Unleased
from proxy.openai.usage import is_believable, unfinished
from proxy.quota.caller import Caller
from proxy.quota.lease import Part

_MARGIN_BYTES = 64
"""More is requested when this much is left, so that a stream rarely has to wait for it."""


class Books(Protocol):
    """What a reservation is made of and returned to; implemented by `Reservations`."""

    async def extend(self, reservation: "Reservation", least: int) -> ProxyError | None:
        """Reserve `least` more output tokens or a whole step; return the error if that is impossible."""

    async def more(self, caller: Caller, tokens: int, nanos: int) -> list[Part] | ProxyError:
        """Reserve this much more; return the error if not enough is left."""

    def settle(self, reservation: "Reservation", tokens: int, nanos: int) -> tuple[Share, ...]:
        """Charge what was used, return the rest."""


def _unheard() -> None:
    """Default for `extended`: no record is kept."""


@dataclass(slots=True, eq=False)
class Reservation:
    """One request's hold. `bound` grows with a stream that has no maximum."""

    books: Books
    caller: Caller
    bound: Bound
    parts: list[Part]
    window: int | None
    """Number of the window that admitted the request."""
    unleased: Unleased | None
    admitted: int
    """Tokens that the caller's short windows have counted."""
    is_lowered: bool = False
    """The request must be sent with `bound.output_tokens` as its maximum."""
    error: ProxyError | None = None
    """Why the answer was ended; set by a failed `extend`."""
    settled: bool = False
    extended: Callable[[], None] = _unheard
    """Called after every extension; set by the exchange's `Settling`."""
    spent: tuple[int, int] = (0, 0)
    """Tokens and nano-dollars that earlier attempts of the request may be charged."""

    @property
    def total(self) -> Bound:
        """The most that all attempts of the request may use and cost together."""
        tokens, nanos = self.spent
        if not tokens and not nanos:
            return self.bound
        bound = self.bound
        return replace(bound, input_tokens=bound.input_tokens + tokens, input_nanos=bound.input_nanos + nanos)

    async def cover(self, bound: Bound, spent_tokens: int, spent_nanos: int) -> bool:
        """Reserve for a further attempt of at most `bound`, on top of what earlier ones may be charged.

        False: not enough is left, and nothing has changed. Never waits for others to settle.
        """
        if self.parts:
            tokens = spent_tokens + bound.tokens - sum(part.tokens for part in self.parts)
            nanos = spent_nanos + bound.cost_nanos - sum(part.nanos for part in self.parts)
            if tokens > 0 or nanos > 0:
                more = await self.books.more(self.caller, max(tokens, 0), max(nanos, 0))
                if isinstance(more, ProxyError):
                    return False
                self.parts = [*self.parts, *more]
        self.bound = bound
        self.spent = (spent_tokens, spent_nanos)
        self.extended()
        return True

    def held(self) -> Hold:
        """Return the share of each lease in `total`, for the intent.

        A crash charges exactly these shares. The parts can be larger than `total`: a fallback may need less than the
        attempt before it.
        """
        (tokens, nanos), shares = self.spent, []
        tokens, nanos = tokens + self.bound.tokens, nanos + self.bound.cost_nanos
        for part in self.parts:
            share = Share(
                part.lease.id,
                tokens if tokens < part.tokens else part.tokens,
                nanos if nanos < part.nanos else part.nanos,
            )
            tokens, nanos = tokens - share.tokens, nanos - share.cost_nanos
            shares.append(share)
        return Hold(self.window, tuple(shares), self.unleased)

    def settle(self, tokens: int, nanos: int) -> Hold:
        """End the reservation: charge what was used, return the rest. Call once; never waits."""
        self.settled = True
        return Hold(self.window, self.books.settle(self, tokens, nanos), self.unleased)

    def cancel(self) -> None:
        """Return everything unused."""
        if not self.settled:
            self.settle(0, 0)

    def covers(self, meter: Meter) -> bool:
        """Tell whether what was generated is within the reservation.

        Without a maximum that binds the provider, text counts by its bytes, as no token has less than one; figures that
        arrived on the way (of a session's responses, including their input) count if they are higher. With a maximum,
        only certain usage counts: every event with text is at least one token.
        """
        return self._used(meter) <= self.bound.output_tokens

    async def extend(self, meter: Meter) -> bool:
        """Reserve more; False if nothing is left."""
        self.error = await self.books.extend(self, self._used(meter) - self.bound.output_tokens)
        if self.error is None:
            self.extended()
        return self.error is None

    def _used(self, meter: Meter) -> int:
        """Return the output tokens to be covered. Input beyond its bound counts as output, which costs more."""
        if self.bound.is_capped:
            return meter.text_deltas
        known = meter.usage
        if known is not None and not meter.usage_by_model and not is_believable(known, self.bound):
            known = None
        told = sum(one.input_tokens + one.output_tokens for one in (known, unfinished(meter)) if one is not None)
        told -= self.bound.input_tokens
        return max(meter.output_text_bytes + meter.sound_tokens, told) + _MARGIN_BYTES
