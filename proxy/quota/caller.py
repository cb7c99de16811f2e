"""One caller, a (user, project), as this replica sees it: what is held, what PostgreSQL last reported, who waits.

Rule of the file: state and pure questions about it; nothing here waits, queries PostgreSQL or writes a record.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

from proxy.nouns.holds import Bound, Unleased
from proxy.quota.lease import Account, Part
from proxy.quota.ledger import Balance
from proxy.quota.limits import ProjectQuota
from proxy.quota.windows import ShortWindows

_SCARCE = 20
"""If less than this fraction (one in so many) of a limit is left, nothing is held in advance."""


@dataclass(slots=True)
class Admission:
    """What a request was granted: parts of leases, or permission to run without one."""

    bound: Bound
    parts: list[Part]
    unleased: Unleased | None = None


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that the units held here cannot serve."""

    wanted: Bound
    level: Bound
    """What it would accept by now: `wanted`, or the same with a lower output maximum."""
    until: float
    """Monotonic seconds until which it waits for other requests to settle."""
    is_growth: bool
    """The extension of a running request, which does not wait for others."""
    admitted: asyncio.Future[Admission]


@dataclass(slots=True, eq=False)
class Caller:
    """State of one caller. Times are monotonic seconds."""

    account: Account
    policy: ProjectQuota
    used_at: float
    balance: Balance | None = None
    """As PostgreSQL last reported; `None` before its first answer."""
    heard_at: float = 0.0
    windows: ShortWindows | None = None
    """Short windows, if the project has any."""
    waiters: deque[Waiter] = field(default_factory=deque)
    supply: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was returned here."""
    peak: int = 0
    """The most tokens reserved at once since the last renewal."""
    unleased_tokens: int = 0
    unleased_nanos: int = 0
    """Admitted without a lease since PostgreSQL became unavailable; the rules of an outage allow only so much."""
    warned: tuple[int, int] = (0, 0)
    """Window, and percent of the limit, of the latest warning."""

    @property
    def key(self) -> tuple[str, str]:
        """User and project."""
        return self.account.user_id, self.account.project_id

    @property
    def is_quiet(self) -> bool:
        """True if nobody runs, waits or asks for this caller."""
        return self.supply is None and not self.waiters and not any(lease.requests for lease in self.account.leases)

    def is_forgettable(self, now: float) -> bool:
        """True if a new state instead of this one would allow the caller nothing more."""
        if not self.is_quiet or not (self.windows is None or self.windows.is_idle(now)):
            return False
        return self.policy.outage == "open" or not (self.unleased_tokens or self.unleased_nanos)

    @property
    def is_scarce(self) -> bool:
        """True if so little is left, or others want it, that nothing should stay unused here."""
        balance = self.balance
        return balance is not None and (
            balance.starved
            or balance.available_tokens < balance.max_tokens // _SCARCE + self.peak
            or balance.available_nanos < balance.max_nanos // _SCARCE
        )

    def reach(self, now: float) -> tuple[int, int]:
        """Tokens and nano-dollars available to a request at once: spare here, or free in PostgreSQL."""
        tokens, nanos = self.account.spare(now)
        if (balance := self.balance) is None:
            return tokens, nanos
        free_tokens, free_nanos = balance.available_tokens, balance.available_nanos
        return tokens + (free_tokens if free_tokens > 0 else 0), nanos + (free_nanos if free_nanos > 0 else 0)

    def hope(self, now: float) -> tuple[int, int]:
        """Tokens and nano-dollars available if everything held came back unused: beyond that, waiting is pointless.

        Held is what runs here or elsewhere, is unused elsewhere, or is on its way back in a journal.
        """
        balance = self.balance
        if balance is None:
            return self.reach(now)
        return balance.max_tokens - balance.settled_tokens, balance.max_nanos - balance.settled_nanos

    def need(self, bound: Bound, now: float) -> tuple[int, int]:
        """Return what is missing here to serve `bound`."""
        tokens, nanos = self.account.spare(now)
        return max(bound.tokens - tokens, 0), max(bound.cost_nanos - nanos, 0)


def fits(bound: Bound, room: tuple[int, int]) -> bool:
    """Tell whether `bound` fits into `room`, in tokens and nano-dollars."""
    return bound.tokens <= room[0] and bound.cost_nanos <= room[1]


def lowered(bound: Bound, output_tokens: int) -> Bound:
    """Return `bound` with a lower output maximum, to be written into the request."""
    return replace(
        bound,
        output_tokens=output_tokens,
        modest_output_tokens=min(bound.modest_output_tokens, output_tokens),
        is_capped=True,
    )


def lowered_to(bound: Bound, room: tuple[int, int]) -> Bound | None:
    """Return `bound` with the highest output maximum that fits into `room`; `None` if a useful answer does not fit."""
    output = min(room[0] - bound.input_tokens, bound.output_tokens)
    price = bound.output_nanos_per_million
    if price:
        output = min(output, (room[1] - bound.input_nanos) * 1_000_000 // price)
    elif room[1] < bound.input_nanos:
        return None
    if not bound.can_be_capped or output < min(LEAST_OUTPUT_TOKENS, bound.output_tokens) or output <= 0:
        return None
    return lowered(bound, output)


USEFUL_TOKENS = 256
"""An answer without a maximum gets at least this much while others may return something."""
LEAST_OUTPUT_TOKENS = 16
"""A shorter answer is useless; it is also the minimum that the Responses API accepts."""
