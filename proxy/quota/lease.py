"""The part of a caller's quota that one replica holds, and how requests share it. Pure: no clock, no I/O.

    PostgreSQL --grant--> Lease: spare --take--> reserved --give--> spent (in the journal, then in PostgreSQL)
        ^                   |  ^                    |
        '---- shrink -------'  '--- what was not used

Every unit is in exactly one of these places. Rule of the file: spare grows only by a grant or by what a request
returns, so spending here never exceeds what PostgreSQL has subtracted before, whatever the clocks do. A lease that
PostgreSQL counts as expired stays usable until its window ends: its units are burned there, so nobody else can get
them.

A request may be covered by several leases; each charge is booked on the leases that were reserved from. Usage beyond
the reservation (an estimate that was too low) is taken from spare units first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from proxy.nouns.holds import Share


@dataclass(slots=True, eq=False)
class Lease:
    """A slice of one window's remaining tokens and money. `usable_until`: monotonic seconds, the window's local end."""

    id: str
    window: int
    usable_until: float
    spare_tokens: int
    spare_nanos: int
    reserved_tokens: int = 0
    reserved_nanos: int = 0
    requests: int = 0
    """Number of requests that use it."""


@dataclass(slots=True, eq=False)
class Part:
    """What one request has reserved from one lease."""

    lease: Lease
    tokens: int
    nanos: int


@dataclass(slots=True, eq=False)
class Account:
    """The leases of one caller on this replica."""

    user_id: str
    project_id: str
    leases: list[Lease] = field(default_factory=list)

    @property
    def reserved(self) -> tuple[int, int]:
        """Tokens and nano-dollars that running requests hold."""
        if len(self.leases) == 1:  # nearly always; summing over a generator costs five times as much (timeit)
            return self.leases[0].reserved_tokens, self.leases[0].reserved_nanos
        return sum(x.reserved_tokens for x in self.leases), sum(x.reserved_nanos for x in self.leases)

    def spare(self, now: float) -> tuple[int, int]:
        """Tokens and nano-dollars available to a new request."""
        if len(self.leases) == 1:
            only = self.leases[0]
            return (only.spare_tokens, only.spare_nanos) if now < only.usable_until else (0, 0)
        usable = [lease for lease in self.leases if now < lease.usable_until]
        return sum(x.spare_tokens for x in usable), sum(x.spare_nanos for x in usable)

    def take(self, tokens: int, nanos: int, now: float) -> list[Part] | None:
        """Reserve from one lease, else from several; `None` if all of them together do not have enough."""
        for lease in self.leases:
            if lease.spare_tokens >= tokens and lease.spare_nanos >= nanos and now < lease.usable_until:
                return [_reserve(lease, tokens, nanos)]
        spare_tokens, spare_nanos = self.spare(now)
        if not self.leases or spare_tokens < tokens or spare_nanos < nanos:
            return None
        parts = []
        for lease in self.leases:
            if now < lease.usable_until and (lease.spare_tokens or lease.spare_nanos):
                part = _reserve(lease, min(tokens, lease.spare_tokens), min(nanos, lease.spare_nanos))
                tokens, nanos = tokens - part.tokens, nanos - part.nanos
                parts.append(part)
        return parts

    def give(self, parts: Iterable[Part], tokens: int, nanos: int) -> tuple[Share, ...]:
        """End a request: book its usage on its leases and return the rest to them. Returns each lease's share."""
        shares = []
        part = None
        for part in parts:
            lease = part.lease
            used = Share(
                lease.id,
                tokens if tokens < part.tokens else part.tokens,
                nanos if nanos < part.nanos else part.nanos,
            )
            tokens, nanos = tokens - used.tokens, nanos - used.cost_nanos
            lease.reserved_tokens -= part.tokens
            lease.reserved_nanos -= part.nanos
            lease.requests -= 1
            lease.spare_tokens += part.tokens - used.tokens
            lease.spare_nanos += part.nanos - used.cost_nanos
            shares.append(used)
        if part is not None and (tokens or nanos):
            part.lease.spare_tokens = max(part.lease.spare_tokens - tokens, 0)
            part.lease.spare_nanos = max(part.lease.spare_nanos - nanos, 0)
            shares[-1] = Share(part.lease.id, shares[-1].tokens + tokens, shares[-1].cost_nanos + nanos)
        return tuple(shares)

    def drop(self, lease: Lease) -> None:
        """Remove a lease that no request uses."""
        self.leases.remove(lease)


def shrink(lease: Lease) -> tuple[int, int]:
    """Give up spare units; return the tokens and nano-dollars that running requests still hold."""
    lease.spare_tokens = lease.spare_nanos = 0
    return lease.reserved_tokens, lease.reserved_nanos


def _reserve(lease: Lease, tokens: int, nanos: int) -> Part:
    lease.spare_tokens -= tokens
    lease.spare_nanos -= nanos
    lease.reserved_tokens += tokens
    lease.reserved_nanos += nanos
    lease.requests += 1
    return Part(lease, tokens, nanos)
