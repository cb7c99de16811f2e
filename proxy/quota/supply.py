"""Units for requests that the leases held here cannot serve: one task per caller asks PostgreSQL while any waits.

    wait --> queue --> request a lease --> serve in order of arrival
                          ^     |
                          |     | too little
                          |     v
                          |  lower the output maximum? --> what is left is enough: request that
                          |  others hold or use it?     --> wait some seconds for them to settle or return it
                          '--  neither                  --> QuotaExceeded; after waiting in vain, RateLimited

A lease's id is journaled before PostgreSQL is asked, so if the answer is lost or the process dies, the journal returns
the grant. Failure mode: if PostgreSQL does not answer in time, `outage` decides for everyone who waits.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol
from uuid import UUID, uuid4

from proxy.config.quota import Quota
from proxy.errors import DatabaseUnavailable, ProxyError, QuotaExceeded
from proxy.nouns.holds import Bound
from proxy.quota import refusals
from proxy.quota.caller import USEFUL_TOKENS, Admission, Caller, Waiter, fits, lowered, lowered_to
from proxy.quota.lease import Lease, Part
from proxy.quota.ledger import Grant
from proxy.quota.outage import Outage
from proxy.quota.tally import QuotaTally

_PAUSE_S = 0.1
"""Others return what they do not need within about this time."""
_RETRY_S = 0.05
_FRESH_S = 1.0
"""A flood of hopeless requests asks PostgreSQL once in this time; a raised limit may be noticed that late."""
_CLOCK_SKEW = 1 - 5e-4
_EDGE_S = 0.05
"""A lease is not used in the last moments of its window, as clocks may differ."""


class GrantSource(Protocol):
    """The part of the ledger that grants leases."""

    async def acquire(
        self, user_id: str, project_id: str, lease_id: UUID, need: tuple[int, int], want: tuple[int, int]
    ) -> Grant:
        """Request at least `need`, at best `want` (tokens, nano-dollars). Raises DatabaseUnavailable."""


class LeaseBook(Protocol):
    """Where leases are journaled."""

    def begin(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Record that a lease will be requested. Raises JournalUnavailable."""

    def end(self, lease_id: UUID, caller: tuple[str, str]) -> None:
        """Record that no request uses it, or ever will."""


class Supply:
    """Acquires units for the callers of this replica."""

    def __init__(
        self,
        settings: Quota,
        *,
        ledger: GrantSource,
        book: LeaseBook,
        outage: Outage,
        tally: QuotaTally,
        heard: Callable[[Caller, Grant], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._book = book
        self._outage = outage
        self._tally = tally
        self._heard = heard
        self._clock = clock
        self._waiting = 0

    def follow(self, settings: Quota) -> None:
        """Apply a changed configuration."""
        self._settings = settings

    def wait(self, caller: Caller, bound: Bound) -> Awaitable[Admission]:
        """Return an awaitable admission for `bound`, or for it with a lower output maximum.

        Awaiting it raises:
            QuotaExceeded, QuotaUnavailable, JournalUnavailable.
        """
        return self._wait(caller, bound, self._clock() + self._settings.max_wait_ms / 1000, is_growth=False)

    async def more(self, caller: Caller, bound: Bound) -> list[Part]:
        """Return parts for the extension of a running request; does not wait for others. Raises as `wait`."""
        parts = caller.account.take(bound.tokens, bound.cost_nanos, self._clock())
        return parts if parts is not None else (await self._wait(caller, bound, self._clock(), is_growth=True)).parts

    def look_ahead(self, caller: Caller, now: float) -> None:
        """Acquire more before it is needed, while plenty is left."""
        balance = caller.balance
        if balance is None:
            return
        tokens, nanos = caller.account.spare(now)
        least = self._settings.lease_share / 4
        is_low = tokens < caller.peak or tokens < balance.max_tokens * least or nanos < balance.max_nanos * least
        if is_low and not (self._outage.is_away or caller.is_scarce):
            self._start(caller)

    def after_settle(self, caller: Caller) -> None:
        """Serve waiting requests with what was returned; call after every settlement."""
        if caller.waiters:
            self._serve(caller)
            caller.changed.set()

    async def _wait(self, caller: Caller, bound: Bound, until: float, *, is_growth: bool) -> Admission:
        now = self._clock()
        if self._is_hopeless(caller, bound, now):
            raise self._refusal(caller, bound)
        if self._waiting >= self._settings.max_waiting:
            self._tally.deny("waiting")
            raise refusals.crowded()
        waiter = Waiter(bound, bound, until, is_growth, asyncio.get_running_loop().create_future())
        caller.waiters.append(waiter)
        self._waiting += 1
        self._start(caller)
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            _give_up(caller, waiter)
            raise
        finally:
            self._waiting -= 1

    def _is_hopeless(self, caller: Caller, bound: Bound, now: float) -> bool:
        """Tell whether PostgreSQL has just reported that nothing is left for such a request."""
        if caller.balance is None or caller.waiters or now >= caller.heard_at + min(_FRESH_S, caller.balance.window_s):
            return False
        return not _is_possible(bound, caller.hope(now))

    def _start(self, caller: Caller) -> None:
        if caller.supply is None:
            caller.supply = asyncio.create_task(self._run(caller), name="quota supply")

    async def _run(self, caller: Caller) -> None:
        """Ask and serve until nobody waits; if nobody does, ask once ahead of need."""
        try:
            await self._ask(caller)
            while caller.waiters:
                if not self._decide(caller):
                    self._pool(caller)
                    await self._pause(caller)
                if caller.waiters:
                    await self._ask(caller)
        except ProxyError as error:
            self._fail(caller, error)
        finally:
            caller.supply = None
            if caller.waiters:  # arrived while the last ones were refused
                self._start(caller)

    async def _ask(self, caller: Caller) -> None:
        """Request a lease once and serve from it. If PostgreSQL is unavailable, decide for all who wait."""
        try:
            await self._acquire(caller)
        except DatabaseUnavailable:
            self._outage.decide(caller, self._clock())
        else:
            self._serve(caller)

    async def _acquire(self, caller: Caller) -> None:
        if self._outage.is_away:
            await self._outage.first_contact()
        now = self._clock()
        need = caller.need(caller.waiters[0].level, now) if caller.waiters else (0, 0)
        if caller.waiters and need == (0, 0):
            return
        lease_id = uuid4()
        self._book.begin(lease_id, caller.key)
        try:
            grant, asked_at = await self._persist(caller, lease_id, need, self._want(caller, now))
        except BaseException:
            self._book.end(lease_id, caller.key)
            raise
        self._heard(caller, grant)
        if not grant.tokens and not grant.nanos:
            self._book.end(lease_id, caller.key)
            return
        usable_until = asked_at + grant.balance.window_s * _CLOCK_SKEW - _EDGE_S
        caller.account.leases.append(
            Lease(str(lease_id), grant.balance.window, usable_until, grant.tokens, grant.nanos)
        )

    async def _persist(
        self, caller: Caller, lease_id: UUID, need: tuple[int, int], want: tuple[int, int]
    ) -> tuple[Grant, float]:
        """Retry with the same id after a failure, for as long as a request may wait for PostgreSQL."""
        begun = self._clock()
        try:
            async with asyncio.timeout(self._settings.database_timeout_ms / 1000):
                while True:
                    asked_at = self._clock()
                    try:
                        grant = await self._ledger.acquire(*caller.key, lease_id, need, want)
                    except DatabaseUnavailable:
                        if self._outage.is_away:
                            raise
                        await asyncio.sleep(_RETRY_S)
                    else:
                        self._outage.note_answer()
                        self._tally.acquired(is_granted=grant.tokens > 0 or grant.nanos > 0)
                        return grant, asked_at
        except TimeoutError:
            self._outage.note_silence(begun)
            raise DatabaseUnavailable("PostgreSQL did not answer in time.") from None

    def _want(self, caller: Caller, now: float) -> tuple[int, int]:
        """Return the best amount to hold: enough for all who wait and, while plenty is left, for some time ahead."""
        tokens = sum(waiter.level.tokens for waiter in caller.waiters)
        nanos = sum(waiter.level.cost_nanos for waiter in caller.waiters)
        if caller.is_scarce:
            return tokens, nanos
        balance, settings = caller.balance, self._settings
        if balance is None:
            limits = settings.default_tokens_daily, int(settings.default_cost_daily * 1_000_000_000)
        else:
            limits = balance.max_tokens, balance.max_nanos
        spare_tokens, _ = caller.account.spare(now)
        share = settings.lease_share
        return max(tokens, 2 * caller.peak - spare_tokens, int(limits[0] * share)), max(nanos, int(limits[1] * share))

    def _serve(self, caller: Caller) -> None:
        """Admit waiting requests in order; one that needs too much may be overtaken."""
        now = self._clock()
        for waiter in tuple(caller.waiters):
            parts = caller.account.take(waiter.level.tokens, waiter.level.cost_nanos, now)
            if parts is not None:
                caller.waiters.remove(waiter)
                _admit(caller, waiter, Admission(waiter.level, parts))

    def _decide(self, caller: Caller) -> bool:
        """Lower, keep or refuse each waiting request; True if asking again at once will serve one."""
        now = self._clock()
        reach, hope = caller.reach(now), caller.hope(now)
        again = False
        for waiter in tuple(caller.waiters):
            if fits(waiter.level, reach):
                continue
            modest = _modest(waiter.wanted, reach, len(caller.waiters))
            if fits(modest, reach):
                waiter.level, again = modest, True
            elif now < waiter.until and fits(modest, hope):
                continue
            elif (least := lowered_to(waiter.wanted, reach)) is not None:
                waiter.level, again = least, True
            elif now < waiter.until and lowered_to(waiter.wanted, hope) is not None:
                continue
            else:
                caller.waiters.remove(waiter)
                self._refuse(caller, waiter, is_held=not waiter.is_growth and _is_possible(waiter.wanted, hope))
        return again

    def _refuse(self, caller: Caller, waiter: Waiter, *, is_held: bool) -> None:
        if not waiter.admitted.done():
            waiter.admitted.set_exception(self._refusal(caller, waiter.wanted, is_held=is_held))

    def _refusal(self, caller: Caller, wanted: Bound, *, is_held: bool = False) -> ProxyError:
        """Return the error: the day is used up or, if `is_held`, others hold the rest of it at the moment."""
        if is_held and caller.balance is not None:
            error: QuotaExceeded = refusals.held(wanted, caller.balance, caller.account, self._clock())
        else:
            error = refusals.daily(wanted, caller.balance, caller.account, self._clock())
        self._tally.deny(str(error.details.get("reason", "unknown")))
        return error

    def _fail(self, caller: Caller, error: ProxyError) -> None:
        while caller.waiters:
            waiter = caller.waiters.popleft()
            if not waiter.admitted.done():
                waiter.admitted.set_exception(error)

    def _pool(self, caller: Caller) -> None:
        """Return units that serve nobody here while nothing runs: replicas could wait for each other's remainders."""
        if caller.account.reserved == (0, 0):
            for lease in tuple(caller.account.leases):
                caller.account.drop(lease)
                self._book.end(UUID(lease.id), caller.key)

    async def _pause(self, caller: Caller) -> None:
        """Wait until something was returned here, or long enough that it may have been elsewhere."""
        caller.changed.clear()
        try:
            async with asyncio.timeout(_PAUSE_S * random.uniform(0.5, 1.5)):
                await caller.changed.wait()
        except TimeoutError:
            return


def _modest(bound: Bound, room: tuple[int, int], crowd: int) -> Bound:
    """Return what `bound` can settle for if its request names no maximum: a fair part of `room`, but a useful one."""
    if not bound.can_grow and (not bound.can_be_capped or bound.modest_output_tokens >= bound.output_tokens):
        return bound
    if not bound.can_be_capped:
        return replace(bound, output_tokens=bound.modest_output_tokens, is_capped=False)
    fair = lowered_to(bound, (room[0] // crowd, room[1] // crowd))
    fair_tokens = 0 if fair is None else fair.output_tokens
    content = min(max(fair_tokens, USEFUL_TOKENS), bound.modest_output_tokens)
    return replace(bound, output_tokens=content, is_capped=False) if bound.can_grow else lowered(bound, content)


def _is_possible(bound: Bound, hope: tuple[int, int]) -> bool:
    """Tell whether a request could be served if everything held came back."""
    return fits(_modest(bound, hope, 1), hope) or lowered_to(bound, hope) is not None


def _admit(caller: Caller, waiter: Waiter, admission: Admission) -> None:
    if waiter.admitted.done():  # its request was cancelled
        caller.account.give(admission.parts, 0, 0)
    else:
        waiter.admitted.set_result(admission)


def _give_up(caller: Caller, waiter: Waiter) -> None:
    """Release everything for a request that was cancelled while it waited, or just as it was admitted."""
    if waiter in caller.waiters:
        caller.waiters.remove(waiter)
    elif waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
        caller.account.give(waiter.admitted.result().parts, 0, 0)
