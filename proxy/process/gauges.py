"""Metrics of parts that keep their own counts: read when Prometheus scrapes the ops port, not counted twice."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from proxy.auth.keyring import Keyring
from proxy.db.pool import Database
from proxy.journal.segments import Journal, JournalStats
from proxy.journal.transactions import WriterStats
from proxy.journal.writer import Writer
from proxy.metrics import Metrics, Sample
from proxy.phases.intake import ByteBudget
from proxy.process.generation import Generation
from proxy.projects.directory import Directory
from proxy.quota.callers import Callers
from proxy.quota.ledger import Ledger
from proxy.quota.outage import Outage
from proxy.quota.tally import QuotaTally

_NO_DROPS: Final = {(kind, reason): 0 for kind in ("intent", "final", "content") for reason in ("space", "disk")}
"""Exported from 0 on: Prometheus sees no increase in a series that starts at 1."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """The observed parts. `current`: the version of the configuration in force."""

    database: Database
    journal: Journal
    writer: Writer
    ledger: Ledger
    callers: Callers
    outage: Outage
    tally: QuotaTally
    projects: Directory
    keyring: Keyring
    budget: ByteBudget
    metrics: Metrics
    current: Callable[[], Generation]
    interrupted: Callable[[], int]
    """Requests that an earlier process left unfinished, recorded at the start."""

    def samples(self) -> Iterable[Sample]:
        """Return the current values."""
        journal, writer = self.journal.stats(), self.writer.stats()
        yield from self.tally.samples()
        yield from self._quota_samples()
        yield _gauge(
            "sidegate_database_up", "1 if the latest use of PostgreSQL worked, and at once.", self.database.is_up
        )
        yield _gauge("sidegate_journal_records", "Records not yet in PostgreSQL.", journal.records)
        yield _gauge("sidegate_journal_bytes", "Size of all journal segments.", journal.bytes)
        yield _gauge("sidegate_journal_oldest_seconds", "Age of the oldest record not in PostgreSQL.", journal.oldest_s)
        yield _gauge("sidegate_journal_held", "Records in memory because the disk refuses them.", journal.held)
        yield _gauge("sidegate_journal_healthy", "1 if the journal's disk works.", journal.healthy)
        yield _counter("sidegate_journal_damaged_frames", "Frames found damaged and skipped.", journal.damaged_frames)
        for (kind, reason), count in {**_NO_DROPS, **journal.drops}.items():
            labels = {"kind": kind, "reason": reason}
            yield Sample("counter", "sidegate_records_dropped", "Records given up.", labels, count)
        yield _counter("sidegate_records_stored", "Records committed to PostgreSQL, replays included.", writer.records)
        yield _counter("sidegate_records_dead_lettered", "Records that PostgreSQL refused.", writer.dead_letters)
        yield _counter("sidegate_records_lost", "Records that not even the dead letter took.", writer.lost)
        yield from self._accounting(journal, writer)
        yield _gauge(
            "sidegate_projects", "Projects with settings of their own that are known here.", len(self.projects)
        )
        yield from self._upstream_samples()
        former = self.current().compiled.policies.served_former
        yield _counter("sidegate_policy_former", "Requests that the former policy of their project served.", former)
        yield _gauge("sidegate_keys_known", "API keys in memory.", len(self.keyring))
        yield _gauge("sidegate_keys_age_seconds", "Time since the keys were last refreshed.", self.keyring.age_s)
        yield _counter("sidegate_keys_refused", "Wrong API keys.", self.keyring.refused)
        yield _counter("sidegate_keys_blocked", "Keys from addresses that had guessed too often.", self.keyring.blocked)
        yield _gauge("sidegate_buffered_bytes", "Request bodies in memory.", self.budget.used_bytes)
        yield _gauge("sidegate_buffered_limit_bytes", "What they may take together.", self.budget.limit_bytes)

    def _accounting(self, journal: JournalStats, writer: WriterStats) -> Iterable[Sample]:
        """Compare counts that were made independently. A batch in progress may show up briefly."""
        dropped = sum(count for (kind, _), count in journal.drops.items() if kind == "final")
        recorded = journal.finals - self.interrupted() + dropped
        landed = writer.records + writer.dead_letters + writer.lost
        text = "Finished requests without a record, and records that neither wait nor have landed; must stay 0."
        for where, missing in (
            ("journal", self.metrics.finished - recorded),
            ("database", journal.accepted - landed - journal.records),
        ):
            yield Sample("gauge", "sidegate_records_unaccounted", text, {"before": where}, missing)

    def _quota_samples(self) -> Iterable[Sample]:
        now = time.monotonic()
        spare = [caller.account.spare(now) for caller in self.callers]
        text = "Units held here that no request has reserved."
        for dimension, amount in (("tokens", sum(x for x, _ in spare)), ("nanodollars", sum(x for _, x in spare))):
            yield Sample("gauge", "sidegate_quota_lease_remaining", text, {"dimension": dimension}, amount)
        text = "Charged beyond what leases had granted; must stay 0."
        for dimension, amount in (("tokens", self.ledger.over_tokens), ("nanodollars", self.ledger.over_nanos)):
            yield Sample("counter", "sidegate_quota_overspend_units", text, {"dimension": dimension}, amount)
        yield _gauge("sidegate_quota_callers", "Callers whose quota is followed here.", len(self.callers))
        yield _gauge("sidegate_quota_degraded", "1 while PostgreSQL does not answer to quotas.", self.outage.is_away)

    def _upstream_samples(self) -> Iterable[Sample]:
        for name, client in self.current().providers.stats().items():
            labels = {"upstream": name}
            text = "Open connections to the provider."
            yield Sample("gauge", "sidegate_upstream_connections_open", text, labels, client.open)
            yield Sample("gauge", "sidegate_upstream_connections_idle", "Idle ones among them.", labels, client.idle)
            text = "Requests waiting for a connection."
            yield Sample("gauge", "sidegate_upstream_waiting", text, labels, client.waiting)
        for place in self.current().health.describe(time.monotonic()):
            labels = {"upstream": place["upstream"], "credential": str(place["credential"])}
            text = "1 while the credential of the provider can be used: breaker closed, not cooling, not refused."
            usable = place["state"] in ("closed", "half_open")
            yield Sample("gauge", "sidegate_upstream_usable", text, labels, usable)


def _gauge(name: str, text: str, value: float) -> Sample:
    return Sample("gauge", name, text, {}, value)


def _counter(name: str, text: str, value: float) -> Sample:
    return Sample("counter", name, text, {}, value)
