"""The nouns of quotas: the most that a request may use, and the leases that cover it.

Tokens are input plus output, as quotas count them; money is integer nano-dollars.
"""

from dataclasses import dataclass
from typing import Literal

Unleased = Literal["cold", "capped", "open"]


@dataclass(slots=True)
class Bound:
    """The most that one request may use and cost: what is reserved before it is sent.

    Tokens are input plus output, as quotas count them. `output_tokens`: of all choices together.
    """

    input_tokens: int
    input_nanos: int
    output_tokens: int
    output_nanos_per_million: int
    """Integer nano-dollars for a million output tokens."""
    modest_output_tokens: int
    """What to settle for if `output_tokens` does not fit: at most `output_tokens`."""
    is_capped: bool
    """The provider enforces `output_tokens`: the request names it, or the operation's output is bounded."""
    can_be_capped: bool
    """A lower maximum can be written into the request's body."""
    can_grow: bool = False
    """A stream without a maximum of its own: it may start with `modest_output_tokens` and be extended while it runs."""

    @property
    def tokens(self) -> int:
        """Tokens to reserve."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_nanos(self) -> int:
        """Nano-dollars to reserve, rounded up."""
        return self.input_nanos - (-self.output_tokens * self.output_nanos_per_million // 1_000_000)


@dataclass(slots=True)
class Share:
    """The part of a reservation, or of a charge, that one lease covers."""

    lease_id: str
    """UUID in its canonical form."""
    tokens: int
    cost_nanos: int


@dataclass(slots=True)
class Hold:
    """The quota part of a request's records: reserved in its intent, charged in its final."""

    window: int | None
    """Number of the quota window that admitted the request; `None` if no lease did."""
    shares: tuple[Share, ...]
    """Their sums are the reservation (intent) or the charge (final)."""
    unleased: Unleased | None = None
    """Why it was admitted without a lease: before the first contact with PostgreSQL, or by the policy for outages."""
