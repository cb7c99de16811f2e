"""The queries of analytics, each on a connection of the pool.

All SQL that reads sums is in this package, one query per file. Rule of the package: every statement is a constant;
values are parameters. Failure mode: errors of asyncpg become `DatabaseUnavailable` where the connection came from.
"""

from collections.abc import Sequence

from proxy.analytics.expensive import read_expensive
from proxy.analytics.figures import Expensive, Latency, Question, Share, TimeRange, Usage
from proxy.analytics.findings import Findings, read_findings
from proxy.analytics.latency import read_latency
from proxy.analytics.series import Series, Split, read_series
from proxy.analytics.shares import read_projects, read_users
from proxy.analytics.usage import read_usage
from proxy.db.pool import Connections


class Analytics:
    """Runs queries. Uses one connection of the pool per call; every method raises DatabaseUnavailable."""

    def __init__(self, database: Connections) -> None:
        self._database = database

    async def usage(self, question: Question) -> Usage:
        """Return the sums of a range, in total and by period, layer and model, exact to the moment."""
        async with self._database.transaction() as connection:
            return await read_usage(connection, question)

    async def series(self, question: Question, split: Split, most_names: int) -> Series:
        """Return the sums of calls by period and name, of at most `most_names` names."""
        async with self._database.transaction() as connection:
            return await read_series(connection, question, split, most_names)

    async def latency(self, question: Question) -> Latency:
        """Return percentiles over the whole days of a range; by layer and model only without a user."""
        async with self._database.transaction() as connection:
            return await read_latency(connection, question)

    async def findings(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Findings]]:
        """Return the most frequent findings of the policy over whole days."""
        async with self._database.transaction() as connection:
            return await read_findings(connection, question, limit)

    async def users(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the users who spent most, over whole days."""
        async with self._database.transaction() as connection:
            return await read_users(connection, question, limit)

    async def projects(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Share]]:
        """Return the projects that spent most, over whole days of their own time zones."""
        async with self._database.transaction() as connection:
            return await read_projects(connection, question, limit)

    async def expensive(self, question: Question, limit: int) -> tuple[TimeRange, Sequence[Expensive]]:
        """Return the most expensive requests whose traces are still kept."""
        async with self._database.transaction() as connection:
            return await read_expensive(connection, question, limit)
