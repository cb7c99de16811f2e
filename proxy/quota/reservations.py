"""Phase 5: reserve before a request is sent, from the leases of this replica, in memory.

    reserve_now --> spare units? --> Reservation                         microseconds, no await
    reserve     --> Supply asks PostgreSQL, waits for others to settle --> Reservation, or QuotaExceeded

Short windows come first, so that their refusal touches no lease. A request without price and tokens, and any request
while quotas are disabled, is admitted, and its charge still recorded.

Failure mode: if PostgreSQL does not answer, the project's policy decides (`quota.limits`); nothing waits longer than
`database_timeout_ms` for it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from proxy.config.quota import Quota
from proxy.errors import ProxyError, QuotaExceeded
from proxy.exchange import Headers, Principal
from proxy.nouns.holds import Bound, Share, Unleased
from proxy.quota import refusals
from proxy.quota.caller import Caller
from proxy.quota.callers import Callers
from proxy.quota.headers import Standing, render, render_day, tightest
from proxy.quota.lease import Part
from proxy.quota.outage import Outage
from proxy.quota.reservation import Reservation
from proxy.quota.supply import Supply
from proxy.quota.tally import QuotaTally

_NOTHING = Bound(0, 0, 0, 0, 0, is_capped=True, can_be_capped=False)


class Reservations:
    """The quotas of all requests on this replica."""

    def __init__(
        self,
        settings: Quota,
        *,
        callers: Callers,
        supply: Supply,
        outage: Outage,
        tally: QuotaTally,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._callers = callers
        self._supply = supply
        self._outage = outage
        self._tally = tally
        self._clock = clock

    def reserve_now(self, principal: Principal, bound: Bound) -> Reservation | None:
        """Reserve from units held here; `None`: `reserve` has to decide.

        Raises:
            RateLimited: a short window is full, or nothing more can be remembered of a new caller.
            QuotaUnavailable: PostgreSQL is unavailable and the project's policy is `closed`.
        """
        now = self._clock()
        caller = self._caller(principal, now)
        if caller.windows is not None:
            refusal = caller.windows.admit(bound.tokens, now)
            if refusal is not None:
                self._tally.deny(refusal.dimension)
                raise refusals.short(refusal, datetime.now(UTC))
        try:
            return self._take(caller, bound, now)
        except ProxyError:
            self._leave_windows(caller, bound.tokens, 0)
            raise

    def without_limit(self, principal: Principal) -> Reservation:
        """Admit a request while quotas are disabled: its charge is booked all the same."""
        who, now = (principal.user_id, principal.project_id), self._clock()
        caller = self._callers.get(*who, now) or self._callers.stranger(*who, now)
        return self._make(caller, _NOTHING, [], "open", 0)

    async def reserve(self, principal: Principal, bound: Bound) -> Reservation:
        """Reserve when `reserve_now` could not. If cancelled, it leaves nothing reserved.

        Raises:
            QuotaExceeded: not enough is left of the day's tokens or money.
            QuotaUnavailable: PostgreSQL is unavailable and the project's policy refuses the request.
        """
        caller = self._caller(principal, self._clock())
        try:
            got = await self._supply.wait(caller, bound)
        except BaseException:
            self._leave_windows(caller, bound.tokens, 0)
            raise
        made = self._make(caller, got.bound, got.parts, got.unleased, bound.tokens)
        made.is_lowered = got.bound is not bound and got.bound.is_capped
        return made

    def left_nanos(self, principal: Principal) -> int | None:
        """Return the money that the caller could spend now; `None` before PostgreSQL has reported its limits."""
        caller = self._callers.known(principal.user_id, principal.project_id)
        if caller is None or caller.balance is None or not self._settings.enabled:
            return None
        return caller.reach(self._clock())[1]

    def headers(self, principal: Principal) -> Headers:
        """Return the rate-limit headers for the caller; none before PostgreSQL has reported its limits."""
        caller = self._callers.known(principal.user_id, principal.project_id)
        if caller is None or caller.balance is None:
            return ()
        now, balance = self._clock(), caller.balance
        tokens, nanos = caller.reach(now)
        left_s = caller.heard_at + balance.window_s - now
        reset_s = left_s if left_s > 0.0 else 0.0
        if caller.windows is None:
            return render_day((balance.max_tokens, tokens), (balance.max_nanos, nanos), reset_s)
        day_tokens = Standing(balance.max_tokens, tokens, reset_s)
        day_cost = Standing(balance.max_nanos, nanos, reset_s)
        minute = caller.windows.state(now)
        return render(minute.get("requests"), tightest(minute.get("tokens"), day_tokens), day_cost)

    def _caller(self, principal: Principal, now: float) -> Caller:
        caller = self._callers.get(principal.user_id, principal.project_id, now)
        if caller is None:
            self._tally.deny("callers")
            raise refusals.full(self._settings.max_callers)
        return caller

    def _take(self, caller: Caller, bound: Bound, now: float) -> Reservation | None:
        if self._outage.is_away and self._outage.was_reached and caller.policy.outage == "closed":
            raise refusals.unavailable()
        if caller.waiters:
            return None  # waiting requests come first
        tokens = bound.tokens
        parts = caller.account.take(tokens, bound.cost_nanos, now)
        if parts is None:
            return None
        self._supply.look_ahead(caller, now)
        return self._make(caller, bound, parts, None, tokens)

    def _make(
        self, caller: Caller, bound: Bound, parts: list[Part], unleased: Unleased | None, admitted: int
    ) -> Reservation:
        held = caller.account.reserved[0]
        caller.peak = held if held > caller.peak else caller.peak
        return Reservation(self, caller, bound, parts, parts[0].lease.window if parts else None, unleased, admitted)

    # Called by reservations.

    def settle(self, reservation: Reservation, tokens: int, nanos: int) -> tuple[Share, ...]:
        """Charge what was used, return the rest."""
        caller = reservation.caller
        self._leave_windows(caller, reservation.admitted, tokens)
        shares = caller.account.give(reservation.parts, tokens, nanos)
        self._supply.after_settle(caller)
        return shares

    async def more(self, caller: Caller, tokens: int, nanos: int) -> list[Part] | ProxyError:
        """Reserve this much more; return the error if not enough is left."""
        try:
            return await self._supply.more(caller, replace(_NOTHING, input_tokens=tokens, input_nanos=nanos))
        except ProxyError as refusal:
            return refusal

    async def extend(self, reservation: Reservation, least: int) -> ProxyError | None:
        """Reserve `least` more output tokens or, better, a whole step; return the error if that is impossible."""
        bound = reservation.bound
        if reservation.unleased is None:
            error: ProxyError | None = None
            for step in (max(least, self._settings.stream_output_tokens), max(least, 1)):
                more = replace(bound, input_tokens=0, input_nanos=0, output_tokens=step, can_be_capped=False)
                try:
                    parts = await self._supply.more(reservation.caller, more)
                except QuotaExceeded as refusal:
                    error = refusals.cut(refusal)
                    continue
                except ProxyError as refusal:
                    error = refusal
                    continue
                reservation.parts = [*reservation.parts, *parts]
                least, error = step, None
                break
            if error is not None:
                return error
        reservation.bound = replace(bound, output_tokens=bound.output_tokens + max(least, 1))
        return None

    def _leave_windows(self, caller: Caller, reserved: int, used: int) -> None:
        if caller.windows is not None:
            caller.windows.settle(reserved, used, self._clock())
