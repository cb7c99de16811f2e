"""The composition root: builds a wired proxy from a `Config`. Every constructor call is here.

    Journal --> Writer --> PostgreSQL            Provider --> upstream client
       ^                      ^                      ^
       |                TraceStore, Ledger <-- Api   |
    Pipeline -- Reservations -- Supply, Keeper    Pipeline <-- Ingress (data port)      Ops (ops port)

`__init__` builds what lasts as long as the process, whose state must survive a change of the configuration. `assembled`
builds the rest, once for each version of the configuration (`generation`).

Nothing here opens a connection or a file except `recover`, which locks the journal, turns requests that an earlier
process left unfinished into `interrupted` traces, and then returns the leases that it held.
"""

import asyncio
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from proxy.api.lazy import ApiParts, LazyApi
from proxy.api.response_cache import ResponseCache
from proxy.auth.admission import Admission
from proxy.auth.keyring import Keyring
from proxy.auth.keys import KeyStore
from proxy.cache.answers import AnswerCache
from proxy.cache.sharing import Sharing
from proxy.cache.store import AnswerStore
from proxy.config.plain import plain
from proxy.config.schema import Config, Otel
from proxy.db.pool import Database
from proxy.db.pool_share import PoolShare
from proxy.event_loop.write_batching import LoopTurn
from proxy.exchange import Charge
from proxy.ingress.handler import Ingress
from proxy.ingress.ops import Ops
from proxy.ingress.serving import Serving
from proxy.journal.segments import Journal
from proxy.journal.writer import Writer
from proxy.metrics import Metrics
from proxy.openai.estimate import estimate_usage
from proxy.phases.intake import ByteBudget
from proxy.phases.planner import Planner
from proxy.pipeline import Pipeline
from proxy.process import generation, memory
from proxy.process.gauges import Gauges
from proxy.process.generation import Compiled, Generation
from proxy.process.shedding import Shedding
from proxy.projects.directory import Directory
from proxy.projects.store import ProjectStore
from proxy.quota.callers import Callers
from proxy.quota.keeper import Keeper
from proxy.quota.lease_book import LeaseBook, ended
from proxy.quota.ledger import Ledger
from proxy.quota.outage import Outage
from proxy.quota.reservations import Reservations
from proxy.quota.supply import Supply
from proxy.quota.tally import QuotaTally
from proxy.routing.catalogue import Catalogue
from proxy.routing.dispatch import Dispatcher
from proxy.routing.health import Health
from proxy.trace import record
from proxy.trace.chains import Chains
from proxy.trace.otlp import Outbox
from proxy.trace.spans import tracer
from proxy.trace.store import TraceStore
from proxy.upstream.client import make_client
from proxy.upstream.client_pool import ClientPool, Clients
from proxy.upstream.poster import Poster
from proxy.upstream.provider import Provider
from proxy.upstream.upstreams import Upstreams

_log = logging.getLogger("sidegate")


class App:
    """One wired proxy; `serve` starts, watches and stops it."""

    def __init__(self, config: Config, admin_key: str) -> None:
        clock = time.monotonic
        self.draining = False
        self.interrupted = 0
        """Number of requests that an earlier process left unfinished."""
        self.metrics = Metrics(config.metrics.max_models)
        self.metrics.follow(config.metrics, config.providers)
        # PostgreSQL. The management API may use half of the connections, so that it cannot keep requests waiting.
        self.database = Database(config.database)
        size, wait_s = config.database.pool_size, config.database.acquire_timeout_s
        self._api_database = PoolShare(self.database, max(1, size // 2), wait_s)
        # Records: journaled by every request, then stored as traces, and charged, in one transaction.
        self.journal = Journal(Path(config.data_dir) / "journal", config.journal)
        self.store = TraceStore(self.database, config.database)
        self.ledger = Ledger(self.database, config.quota, _holder())
        self.writer = Writer(
            self.journal,
            transaction=partial(self.database.transaction, patient=True),
            appliers=(self.store, self.ledger),
            sift=self.store.refused,
            dead_letter=self.store.dead_letter,
            settings=config.journal,
        )
        self.outbox = Outbox(config.otel, _poster)
        self.chains = Chains()
        # Connections to providers outlive a configuration. Writes of one turn of the event loop leave together.
        self.turn = LoopTurn()
        self.clients = ClientPool(partial(make_client, turn=self.turn))
        # Who calls, and by which settings.
        self._keys = KeyStore(self.database)
        self.keyring = Keyring(config.auth, self._keys, clock=clock)
        self.projects = Directory(
            config.projects,
            ProjectStore(self.database, config.projects.max_projects),
            kept_in=Path(config.data_dir) / "projects.json",
            clock=clock,
        )
        # Caches: of answers, for projects that enable it, and of the management API's responses.
        answers = AnswerStore(self.database, config.cache.shared_bytes, config.cache.ttl_s)
        self.cache = AnswerCache(config.cache, Sharing(answers) if config.cache.shared else None)
        self.api_cache = ResponseCache(config.api, lambda: (self.writer.stats().batches, self.ledger.changes))
        # What this process can take: requests are refused, and large bodies wait, before it runs out of memory or time.
        self.shedding = Shedding(
            config.shedding,
            self.metrics,
            memory.limit_bytes(),
            concurrent_requests=config.limits.concurrent_requests,
            has_critical=lambda: self.projects.has_critical,
        )
        self.budget = ByteBudget(self.shedding.most_body_bytes(config.limits.buffered_bytes))
        # Quotas: the leases of this replica. `keeper` renews and returns them, `supply` requests more.
        self.tally = QuotaTally()
        self.outage = Outage(config.quota, self.tally, clock)
        self.callers = Callers(config.quota, self.projects.quota_rules)
        book = LeaseBook(self.journal, self.writer.hurry)
        self.keeper = Keeper(
            config.quota,
            ledger=self.ledger,
            book=book,
            callers=self.callers,
            outage=self.outage,
            tally=self.tally,
            clock=clock,
        )
        self.supply = Supply(
            config.quota,
            ledger=self.ledger,
            book=book,
            outage=self.outage,
            tally=self.tally,
            heard=self.keeper.heard,
            clock=clock,
        )
        # The rest is built anew for each version of the configuration; the ports use the current one.
        compiled = generation.compiled(config)
        clients = tuple(self._take_clients(config, compiled))
        self.current = self.assembled(config, compiled, clients, admin_key)
        self._ending: set[asyncio.Task[None]] = set()
        """Generations that still have running requests."""
        self.ingress = Ingress(self.current.serving, self.metrics, self.shedding)
        self.ops = Ops(self.metrics, self.state)
        for part in (self._gauges(), self.shedding, self.outbox, self.cache, self.api_cache):
            self.metrics.at_scrape(part.samples)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.current.config

    def assembled(
        self,
        config: Config,
        compiled: Compiled,
        clients: Sequence[Clients],
        admin_key: str,
        before: Generation | None = None,
    ) -> Generation:
        """Build a generation from this configuration, from what lasts and from what `before` passes on."""
        providers = Upstreams(
            [Provider(own, one.http, one.websockets) for own, one in zip(config.providers, clients, strict=True)]
        )
        health = Health(config.providers, config.routing.breaker, random.random, before.health if before else None)
        is_same_stock = before is not None and before.config.routing.retry_budget == config.routing.retry_budget
        dispatcher = Dispatcher(config.routing, health, before.dispatcher.budget if before and is_same_stock else None)
        quotas = Reservations(
            config.quota,
            callers=self.callers,
            supply=self.supply,
            outage=self.outage,
            tally=self.tally,
            clock=time.monotonic,
        )
        planner = Planner(
            config,
            catalogue=Catalogue(config.providers, compiled.layers),
            health=health,
            prices=compiled.prices,
            quotas=quotas,
        )
        settings = plain(config)
        pipeline = Pipeline(
            settings,
            provider=providers,
            planner=planner,
            dispatcher=dispatcher,
            prices=compiled.prices,
            admission=Admission(self.keyring) if config.auth.mode == "keys" else None,
            projects=self.projects,
            policies=compiled.policies,
            quotas=quotas,
            journal=self.journal,
            metrics=self.metrics,
            recorded=self.writer.notify,
            budget=self.budget,
            shedding=self.shedding,
            cache=self.cache,
            chains=self.chains,
            tracer=tracer(config.otel, config.providers, self.outbox, providers.secrets),
        )
        api = LazyApi(
            ApiParts(
                config,
                admin_key,
                database=self._api_database,
                ledger=self.ledger,
                keys=self._keys,
                keyring=self.keyring,
                policies=compiled.policies,
                projects=self.projects,
                planner=planner,
                health=health,
                cache=self.api_cache,
            )
        )
        serving = Serving(settings, pipeline, api)
        return Generation(config, compiled, tuple(clients), providers, health, dispatcher, planner, serving)

    def _gauges(self) -> Gauges:
        return Gauges(
            database=self.database,
            journal=self.journal,
            writer=self.writer,
            ledger=self.ledger,
            callers=self.callers,
            outage=self.outage,
            tally=self.tally,
            projects=self.projects,
            keyring=self.keyring,
            budget=self.budget,
            metrics=self.metrics,
            current=lambda: self.current,
            interrupted=lambda: self.interrupted,
        )

    async def switch(self, config: Config, compiled: Compiled, admin_key: str) -> None:
        """Switch to another configuration, in one step of the event loop and only if all of it could be built.

        Raises:
            OSError: `client.ca_file` cannot be read.
        """
        clients: list[Clients] = []
        try:
            for taken in self._take_clients(config, compiled):
                clients.append(taken)
                await asyncio.sleep(0)
        except BaseException:
            await self._give_back(clients)
            raise
        before = self.current
        self.current = self.assembled(config, compiled, clients, admin_key, before)
        self._follow(config)
        self.ingress.use(self.current.serving)
        ending = asyncio.create_task(self._end(before), name="end of a configuration")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _take_clients(self, config: Config, compiled: Compiled) -> Iterator[Clients]:
        trust = compiled.digests.get("client.ca_file", "")
        for settings in config.providers:
            yield self.clients.take(settings, config, trust)

    def _follow(self, config: Config) -> None:
        """Apply a changed configuration to the parts that last."""
        for part in (self.ledger, self.callers, self.keeper, self.supply, self.outage):
            part.follow(config.quota)
        self.keyring.follow(config.auth)
        self.projects.follow(config.projects)
        self.api_cache.follow(config.api)
        self.shedding.follow(config.shedding, config.limits.concurrent_requests)
        self.budget.limit_bytes = self.shedding.most_body_bytes(config.limits.buffered_bytes)
        self.outbox.follow(config.otel)
        self.metrics.follow(config.metrics, config.providers)

    async def _end(self, generation: Generation) -> None:
        """Release a configuration's resources once the last request that began with it has ended."""
        await generation.serving.until_over()
        await self._give_back(generation.clients)
        del generation
        await asyncio.to_thread(memory.tidy)

    async def _give_back(self, clients: Sequence[Clients]) -> None:
        for one in clients:
            await self.clients.give_back(one)

    async def close_clients(self) -> None:
        """Drop all connections to providers."""
        for ending in tuple(self._ending):
            ending.cancel()
        await self.clients.close()

    def recover(self) -> int:
        """Open the journal and record what an earlier process left unfinished; return how many requests that were."""
        recovery = self.journal.open()
        self.projects.recall()
        leases = []
        for intent in recovery.orphans:
            if (end := ended(intent.body)) is not None:
                leases.append((intent.trace_id, end))
            else:
                self.journal.append_final(intent.trace_id, record.interrupted(intent.body, self._estimate))
        for lease_id, end in leases:  # only now is the usage of their requests known
            self.journal.append_lease(lease_id, end, ended=True)
        self.interrupted = len(recovery.orphans) - len(leases)
        if self.interrupted:
            extra = {"count": self.interrupted}
            _log.warning("requests were interrupted by the end of an earlier process", extra=extra)
        return self.interrupted

    def state(self) -> dict[str, Any]:
        """Return the body of `/readyz`."""
        journal = self.journal.stats()
        return {
            "status": "draining" if self.draining else "ready",
            "database": self.database.state,
            "journal": {"records": journal.records, "bytes": journal.bytes, "healthy": journal.healthy},
            "inFlight": self.ingress.running,
        }

    def prepare_policy(self) -> None:
        """Compile the policy of the process, which the first requests wait for: half a second."""
        self.current.compiled.policies.prepare()

    async def tend_journal(self) -> None:
        """Retry writes that a failing disk has held back."""
        self.journal.tend()

    def _estimate(self, model: str | None, text_bytes: int) -> Charge:
        usage = estimate_usage(text_bytes, 0)
        cost_nanos, priced = self.current.compiled.prices.price(model, usage)
        return Charge(usage, "estimated", cost_nanos, priced)


def _poster(otel: Otel) -> Poster:
    return Poster(otel.url or "", ca_file=otel.ca_file, timeout_s=otel.timeout_s)


def _holder() -> str:
    """Return a unique name for this process: a restarted container has the same host name and process id."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
