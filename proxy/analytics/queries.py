"""The questions of analytics, each on a connection of the pool.

All SQL that reads sums stands in this package, one question per file. Rule of the package: every statement is a
constant; values are parameters. Failure mode: errors of asyncpg become `DatabaseUnavailable` where the connection came
from.
"""

from collections.abc import Sequence

from proxy.analytics.expensive import read_expensive
from proxy.analytics.figures import Expensive, Latency, Question, Share, TimeRange, Usage
from proxy.analytics.findings import Findings, read_findings
from proxy.analytics.latency import read_latency
from proxy.analytics.series import Series, Split, read_series
from proxy.analytics.shares import read_projects, read_users
from proxy.analytics.usage import read_usage
from proxy.db.pool import Database


class Analytics:
    """Answers questions. Takes a connection of the pool per call; every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, question: Question) -> Usage:
        """Return the sums of a range, in all and by period, layer and model, exact to the moment."""
        async with self._database.acquire() as connection:
            return await read_usage(connection, question)

    async def series(self, question: Question, split: Split, most_names: int) -> Series:
        """Return the sums of calls by period and name, of at most `most_names` names."""
        async with self._database.acquire() as connection:
            return await read_series(connection, question, split, most_names)

    async def latency(self, question: Question) -> Latency:
        """Return percentiles over the whole days of a range; by layer and model only where no user is named."""
        async with self._database.acquire() as connection:
            return await read_latency(connection, question)

    async def findings(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Findings]]:
        """Return what the policy found most often in whole days."""
        async with self._database.acquire() as connection:
            return await read_findings(connection, question, limit)

    async def users(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the users of whole days who spent most."""
        async with self._database.acquire() as connection:
            return await read_users(connection, question, limit)

    async def projects(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the projects that spent most in whole days, each by its own."""
        async with self._database.acquire() as connection:
            return await read_projects(connection, question, limit)

    async def expensive(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Expensive]]:
        """Return the dearest requests whose traces are still there."""
        async with self._database.acquire() as connection:
            return await read_expensive(connection, question, limit)
