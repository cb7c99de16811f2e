"""Several proxies on one PostgreSQL, and the laws that their accounts must keep, whatever happened meanwhile.

Three accounts are held together: the provider's ledger, the traces, and the quotas. Rule of the file: a law has no
tolerance. What cannot be known exactly is charged as an upper bound and marked `estimated`: never below the ledger.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.billing import Ask, cost
from tests.fakes.provider import Billed, Provider
from tests.fakes.sidegate import Sidegate

Caller = tuple[str, str]
"""User and project."""

_TRACES = """
SELECT conversation_ref AS case, user_id, project_id, input_tokens + output_tokens AS tokens,
    (total_cost * 1000000000)::bigint AS nanos, usage_source, outcome, quota ->> 'window' AS window,
    quota ->> 'unleased' AS unleased
FROM request_traces WHERE conversation_ref IS NOT NULL
"""

_QUOTAS = """
SELECT user_id, project_id, sum(tokens)::bigint AS tokens, (sum(cost) * 1000000000)::bigint AS nanos,
    sum(held)::bigint AS held, sum(burned)::bigint AS burned
FROM (
    SELECT user_id, project_id, current_tokens_today AS tokens, current_cost_today AS cost, held_tokens AS held,
        burned_tokens AS burned
    FROM user_quotas
    UNION ALL
    SELECT user_id, project_id, tokens, cost, held_tokens, burned_tokens FROM quota_windows
) AS windows GROUP BY user_id, project_id
"""


class Fleet:
    """Proxies that share a database, each with a journal of its own."""

    def __init__(self, directory: Path, provider: Provider, url: str, count: int, **settings: str) -> None:
        self._directory = directory
        self._provider = provider
        self._settings = settings
        self.url = url
        self.proxies = [self._make(number, url) for number in range(count)]

    def _make(self, number: int, url: str) -> Sidegate:
        directory = self._directory / f"proxy-{number}"
        directory.mkdir()
        return Sidegate(directory, self._provider.base_url, url, self._settings, by_script=True)

    async def start(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(proxy.start) for proxy in self.proxies))
        await asyncio.gather(*(self.until(proxy, "sidegate_database_up", 1) for proxy in self.proxies))

    async def stop(self) -> None:
        """Ask all to end; what they hold is given back and their journals are written out."""
        for proxy in self.proxies:
            if proxy.process.poll() is None:
                proxy.ask_to_end()
        for proxy in self.proxies:
            await asyncio.to_thread(proxy.stop)

    async def settle(self) -> None:
        """Wait until no journal holds anything."""
        for proxy in self.proxies:
            await self.until(proxy, "sidegate_requests_in_flight", 0)
            await self.until(proxy, "sidegate_journal_records", 0)

    async def until(self, proxy: Sidegate, metric: str, value: float, within_s: float = 60.0) -> None:
        """Wait for a metric. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while (await asyncio.to_thread(proxy.metrics)).get(metric) != value:
                await asyncio.sleep(0.05)

    def metric(self, name: str) -> float:
        """Sum of a metric over all, labels added up."""
        found = [proxy.metrics() for proxy in self.proxies if proxy.process.poll() is None]
        return sum(value for samples in found for key, value in samples.items() if key.partition("{")[0] == name)


async def set_limits(
    connection: "asyncpg.Connection[Any]",
    caller: Caller,
    *,
    tokens: int | None = None,
    dollars: str | None = None,
    rules: Mapping[str, object] | None = None,
    zone: str | None = None,
) -> None:
    """Make a quota, as an operator does with psql; `rules`, `zone`: of its project."""
    config: dict[str, object] = {} if zone is None else {"timeZone": zone}
    if rules is not None:
        config["quota"] = dict(rules)
    await connection.execute(
        "INSERT INTO projects (id, organization_id, name, config) VALUES ($1, 'default-org', $1, $2::text::jsonb)"
        " ON CONFLICT (id) DO UPDATE SET config = EXCLUDED.config",
        caller[1],
        json.dumps(config),
    )
    await connection.execute(
        "INSERT INTO user_quotas (user_id, project_id, max_tokens_daily, max_cost_daily)"
        " VALUES ($1, $2, coalesce($3, 1000000000000), coalesce($4::text, '1000000')::numeric)",
        *caller,
        tokens,
        dollars,
    )


@dataclass
class Accounts:
    """All that is known about a run; amounts as (tokens, nano-dollars)."""

    asks: Mapping[str, Ask]
    ledger: Mapping[str, Billed]
    traces: Mapping[str, Sequence[Mapping[str, Any]]]
    quotas: Mapping[Caller, Mapping[str, Any]]

    @classmethod
    async def read(cls, connection: "asyncpg.Connection[Any]", asks: Sequence[Ask], provider: Provider) -> "Accounts":
        traces: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in await connection.fetch(_TRACES):
            traces[row["case"]].append(dict(row))
        quotas = {(row["user_id"], row["project_id"]): dict(row) for row in await connection.fetch(_QUOTAS)}
        return cls({ask.case: ask for ask in asks}, {entry.case: entry for entry in provider.ledger}, traces, quotas)

    def billed(self, caller: Caller) -> tuple[int, int]:
        """What the provider's ledger says of a caller."""
        mine = [
            entry for case, entry in self.ledger.items() if (self.asks[case].user, self.asks[case].project) == caller
        ]
        return sum(entry.input_tokens + entry.output_tokens for entry in mine), sum(map(cost, mine))

    def charged(self, caller: Caller) -> tuple[int, int]:
        """What the traces say."""
        mine = [row for rows in self.traces.values() for row in rows if (row["user_id"], row["project_id"]) == caller]
        return sum(row["tokens"] for row in mine), sum(row["nanos"] for row in mine)

    def settled(self, caller: Caller) -> tuple[int, int]:
        """What the quotas say, all windows together."""
        row = self.quotas.get(caller)
        return (0, 0) if row is None else (row["tokens"], row["nanos"])

    def broken(self) -> list[str]:
        """Return the breaches of the laws that hold in every run, the first few of each."""
        found = Counter(case for case, rows in self.traces.items() for _ in rows)
        lost = [case for case in self.ledger if found[case] != 1]
        wrong = [case for case, entry in self.ledger.items() if found[case] == 1 and not self._is_right(case, entry)]
        answered = [ask.case for ask in self.asks.values() if ask.answered and found[ask.case] != 1]
        callers = {(ask.user, ask.project) for ask in self.asks.values()}
        apart = [caller for caller in callers if self.settled(caller) != self.charged(caller)]
        kept = [caller for caller, row in self.quotas.items() if row["held"] or row["burned"]]
        laws: Sequence[tuple[str, Sequence[Any]]] = (
            ("what the provider received has one trace", lost),
            ("what was answered has one trace", answered),
            ("a charge is the ledger's, or an upper bound and marked", wrong),
            ("user_quotas and quota_windows are the sums of the traces", apart),
            ("nothing stays held or burned", kept),
        )
        return [f"{law}: broken by {len(cases)}: {cases[:4]}" for law, cases in laws if cases]

    def _is_right(self, case: str, entry: Billed) -> bool:
        trace = self.traces[case][0]
        tokens = entry.input_tokens + entry.output_tokens
        if trace["usage_source"] == "provider":
            return bool(trace["tokens"] == tokens and trace["nanos"] == cost(entry))
        return bool(
            trace["usage_source"] == "estimated" and trace["tokens"] >= tokens and trace["nanos"] >= cost(entry)
        )

    def line(self, caller: Caller) -> str:
        """The sums of a caller, for people."""
        mine = [ask for ask in self.asks.values() if (ask.user, ask.project) == caller]
        statuses = Counter(ask.status or ("left" if ask.aborted else "cut") for ask in mine)
        tokens, nanos = self.billed(caller)
        guessed = [
            row["tokens"] - self._tokens(case)
            for case, rows in self.traces.items()
            for row in rows
            if row["usage_source"] == "estimated" and (row["user_id"], row["project_id"]) == caller
        ]
        shown = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items(), key=str))
        return (
            f"{'/'.join(caller):24} {shown}; ledger {tokens} tokens ${nanos / 1e9:.4f},"
            f" charged {self.settled(caller)[0]} with {len(guessed)} upper bounds, {sum(guessed)} above the ledger"
        )

    def _tokens(self, case: str) -> int:
        entry = self.ledger.get(case)
        return 0 if entry is None else entry.input_tokens + entry.output_tokens
