"""The life of the process: listen, start the database, follow the configuration, drain, stop.

Start order: journal (its lock, and recovery of what an earlier process left), listeners, then everything that may take
long or fail: the policy, the private PostgreSQL, migrations, the writer. Requests are served from the start; they wait
for the policy, and their traces in the journal.

Stop order: stop accepting -> finish streams up to `drain_s` -> end the rest with an error event -> flush the
journal up to `flush_s` -> close pools. A second signal skips every wait; the journal keeps what was not flushed.

Source: Kubernetes, "Pod termination"; asyncio, `loop.add_signal_handler`.
"""

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from proxy import logs
from proxy.analytics.rollup import Rollup
from proxy.api.lazy import ASSEMBLE, may_be_ours
from proxy.app import App
from proxy.config.layers import LayersError
from proxy.config.load import Loaded
from proxy.config.schema import Config, Listen, Upstream
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import EmbeddedPostgresError
from proxy.db.schema_watch import LOOK_S, SchemaWatch
from proxy.errors import DatabaseUnavailable, JournalUnavailable
from proxy.ingress.lean import LeanServer
from proxy.policy.rules import RuleError
from proxy.process import memory
from proxy.process.admin_key import admin_key
from proxy.process.huge_pages import use_huge_pages
from proxy.process.lazy import imported
from proxy.process.reload import Reload
from proxy.tasks import Background, every
from proxy.upstream.pricing import PriceTableError

try:
    import uvloop
except ImportError:
    run_loop = asyncio.run
else:
    run_loop = uvloop.run

_log = logging.getLogger("sidegate")
_BACKLOG = 1024
_PORT_HINTS = {
    errno.EADDRINUSE: "; stop what listens there, or choose another port",
    errno.EADDRNOTAVAIL: "; no network interface has this address",
    errno.EACCES: "; choose a port above 1023",
}
_BAD_CONFIGURATION = 78
_UNUSABLE: dict[type[Exception], str] = {
    LayersError: "the layers",
    PriceTableError: "the price table",
    RuleError: "the rules of the policy",
}
_CUT_GRACE_S = 2.0
"""For the last words to clients whose requests are ended. One that does not read would otherwise be waited for."""
_LEAST_GRACE_S = 0.1
"""The same in a hurry: requests that are ended need some turns of the event loop to settle."""
_HUGE_PAGES_PERIOD_S = 60.0
_MAINTENANCE_PERIOD_S = 3600.0
_RESTART_PAUSE_S = 5.0
_RETRY_S = 1.0
_SWITCH_S = 0.001
"""How long a thread that reads or scans a large body keeps the interpreter from the event loop at a time, where it can
be interrupted; Python's own 5 ms are waited for at each of several steps of a request (bench/stalls.py)."""
_TEND_PERIOD_S = 1.0


def run(loaded: Loaded, load: Callable[[], Loaded], welcome: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. `welcome`: print how to make a first call.

    `load`: reloads the configuration, on SIGHUP and when a file has changed.

    0: ended by a signal. 1: cannot start (port taken, journal in use). 78: a file that the configuration names has
    mistakes.
    """
    logs.configure(loaded.config.logging.level)
    sys.setswitchinterval(_SWITCH_S)
    for problem in loaded.warnings:
        _log.warning("configuration", extra={"problem": str(problem)})
    runner = run_loop if loaded.config.server.uvloop else asyncio.run
    try:
        return runner(_Process(loaded, load, welcome).main())
    except (LayersError, PriceTableError, RuleError) as error:
        _log.error(f"{_UNUSABLE[type(error)]} cannot be used", extra={"reason": str(error)})
        return _BAD_CONFIGURATION
    except (JournalUnavailable, OSError) as error:
        _log.error("cannot start", extra={"reason": str(error)})
        return 1


class _Process:
    """One running proxy and its resources."""

    def __init__(self, loaded: Loaded, load: Callable[[], Loaded], welcome: bool) -> None:
        self._loaded = loaded
        self._load = load
        self._welcome = welcome
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._background = Background()
        self._data_port: asyncio.Server | None = None
        self._managers: list[Any] = []
        """The servers of connections, of both ports."""
        self._embedded: EmbeddedPostgres | None = None
        self._demo: Any = None
        self._demo_url = ""
        self._connected = False
        self._writing = False

    async def main(self) -> int:
        """Start, wait for a signal, stop."""
        self._catch_signals()
        data_dir = Path(self._loaded.config.data_dir)
        _make_writable(data_dir)
        config, key = await self._completed(self._loaded)
        app = App(config, key)
        app.recover()
        reload = Reload(app, self._loaded, load=self._load, completed=self._completed, in_force=self._in_force)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.ask)
        memory.settle()
        await self._listen(app)
        self._background.start("policy", lambda: _complete(app))
        self._background.start("load", lambda: app.shedding.watch(app.ingress.end_largest))
        self._background.start("database", lambda: self._keep_database(app, data_dir))
        self._background.start("projects", app.projects.run)
        self._background.start("quota keeper", app.keeper.run)
        self._background.start("keys", app.keyring.run)
        if app.cache.sharing is not None:
            self._background.start("shared answers", app.cache.sharing.run)
        self._background.start("configuration", reload.run)
        self._background.start("spans", app.outbox.run)
        self._background.start("journal disk", lambda: every(_TEND_PERIOD_S, app.tend_journal))
        await self._stop.wait()
        await self._drain(app)
        return 0

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _completed(self, loaded: Loaded) -> tuple[Config, str]:
        """Return the configuration, with the demo upstream if no provider is configured, and the admin key."""
        config = loaded.config
        if loaded.demo:
            if self._demo is None:
                self._demo = imported("proxy.demo:DemoUpstream")()
                self._demo_url = await self._demo.start()
            changed = {**config.upstream.model_dump(), "name": "demo", "base_url": self._demo_url}
            config = config.model_copy(update={"upstream": Upstream.model_validate(changed)})
        return config, admin_key(config, Path(self._loaded.config.data_dir))

    def _in_force(self, config: Config) -> None:
        """Apply a changed configuration to log and listeners."""
        logs.configure(config.logging.level)
        for manager in self._managers:
            manager.follow(config.limits, config.server.keepalive_s)

    async def _listen(self, app: App) -> None:
        config = app.config
        errors = app.metrics.count_error
        limits, keepalive_s = config.limits, config.server.keepalive_s
        if config.server.kind == "aiohttp":
            make = imported("proxy.ingress.listener:SafeServer")
            for_data, for_ops = (
                make(handle, limits, keepalive_s, errors) for handle in (app.ingress.handle, app.ops.handle)
            )
        else:
            for_data = LeanServer(
                app.ingress.handle,
                limits,
                keepalive_s,
                errors,
                is_elsewhere=may_be_ours,
                loads=ASSEMBLE,
                turn=app.turn,
            )
            for_ops = LeanServer(app.ops.handle, limits, keepalive_s, errors)
        self._data_port, data = await self._open(
            "server.listen (SIDEGATE_LISTEN)", config.server.listen, for_data, shared=config.server.reuse_port
        )
        _, ops = await self._open("server.ops_listen (SIDEGATE_OPS_LISTEN)", config.server.ops_listen, for_ops)
        _log.info("listening", extra={"data": data.address, "ops": ops.address})
        if self._welcome:
            _print_welcome(data.local_address, ops.local_address, app, demo=self._demo is not None)

    async def _open(
        self, setting: str, listen: Listen, manager: Any, *, shared: bool = False
    ) -> tuple[asyncio.Server, Listen]:
        """Listen; return also the address, with the port that the system chose if it was to."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                manager, listen.host, listen.port, backlog=_BACKLOG, reuse_port=shared or None
            )
        except OSError as error:
            hint = _PORT_HINTS.get(error.errno or 0, "")
            raise OSError(f"{setting}: {error.strerror or error}{hint}") from error
        self._managers.append(manager)
        host, port = server.sockets[0].getsockname()[:2]
        return server, Listen(host=host, port=port)

    async def _keep_database(self, app: App, data_dir: Path) -> None:
        """Start the private PostgreSQL if none is configured, migrate, then maintain tables until cancelled."""
        if not self._connected:
            await self._connect(app, data_dir)
            self._connected = True
        schema = SchemaWatch(app.database, migrates=app.config.database.migrate_on_start)
        await schema.bring_up()
        if not self._writing:
            self._writing = True
            self._background.start("journal writer", app.writer.run)
            self._background.start("schema", lambda: every(LOOK_S, lambda: _follow(schema, app)))
        await every(_MAINTENANCE_PERIOD_S, lambda: _maintain(app))

    async def _connect(self, app: App, data_dir: Path) -> None:
        """Create the pool, once: this loop restarts after a failure, and a lost pool would keep its connections."""
        if app.config.database.url is not None:
            await app.database.connect()
        else:
            embedded = EmbeddedPostgres(data_dir)
            try:
                dsn = await embedded.start()
            except EmbeddedPostgresError as error:
                _log.error("the private PostgreSQL cannot start", extra={"reason": str(error)})
                await asyncio.sleep(_RESTART_PAUSE_S)
                raise
            self._embedded = embedded
            await app.database.connect(dsn)
            self._background.start("private PostgreSQL", self._embedded.supervise)

    async def _drain(self, app: App) -> None:
        app.draining = True
        if self._data_port is not None:
            self._data_port.close()  # the ops port stays open: probes and scrapes go on until the end
        app.ingress.begin_drain()
        _log.info("draining", extra={"inFlight": app.ingress.running})
        await self._or_hurry(app.ingress.until_idle(app.config.server.drain_s))
        app.ingress.end_drain()
        await self._or_hurry(app.ingress.until_idle(_CUT_GRACE_S))
        await app.ingress.until_idle(_LEAST_GRACE_S)
        app.keeper.give_all_back()
        await self._or_hurry(app.writer.flush(app.config.server.flush_s))
        await self._or_hurry(app.outbox.flush())
        for manager in self._managers:
            manager.pre_shutdown()  # closes idle connections, which shutdown would wait for
            await manager.shutdown(_LEAST_GRACE_S if self._hurry.is_set() else _CUT_GRACE_S)
        await self._background.stop()
        app.journal.close()
        await app.close_clients()
        await app.database.close()
        if self._embedded is not None:
            await self._embedded.stop()
        if self._demo is not None:
            await self._demo.stop()
        _log.info("stopped", extra={"unflushed": app.journal.stats().records})

    async def _or_hurry(self, work: Awaitable[object]) -> None:
        """Wait for `work`, unless a second signal ends the wait."""
        tasks = {asyncio.ensure_future(work), asyncio.ensure_future(self._hurry.wait())}
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _complete(app: App) -> None:
    """Prepare what the first requests would wait for, without delaying readiness probes; then care for the memory."""
    try:
        await asyncio.to_thread(app.prepare_policy)
    finally:
        _calm_garbage_collector()
    await every(_HUGE_PAGES_PERIOD_S, _use_huge_pages)


async def _use_huge_pages() -> None:
    """Move what has become part of the memory in use."""
    await asyncio.to_thread(use_huge_pages)


def _calm_garbage_collector() -> None:
    """Collect garbage rarely: requests leave no cycles, and the default runs every ten requests (`make bench`: 5 %).

    The second generation is collected early, before a large body has added hundreds of thousands of objects: 30 ms.
    Objects alive now live to the end, so later collections skip them. Until now collection was off (`cli.serve`).
    """
    memory.tidy()  # returns 4 of some 85 MB that the start has left unused
    memory.collect_rarely()


async def _follow(schema: SchemaWatch, app: App) -> None:
    """After an older schema the database is an older copy, whose partitions may have ended long ago."""
    if await schema.look():
        await _maintain(app)


async def _maintain(app: App) -> None:
    while True:
        try:
            await app.store.maintain()
            await app.ledger.maintain()
            await Rollup(app.database, app.config.database.retention_days).make_blocks()
            return
        except DatabaseUnavailable:
            await asyncio.sleep(_RETRY_S)


def _make_writable(data_dir: Path) -> None:
    """Create the data directory, or raise OSError that names the setting: what it holds would fail one by one."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(f"data_dir (SIDEGATE_DATA_DIR): {data_dir} cannot be used: {error.strerror}") from error


def _print_welcome(data: str, ops: str, app: App, *, demo: bool) -> None:
    """Say how to make a first call. `data`, `ops`: where this machine reaches the two ports."""
    config = app.config
    answers = "the demo upstream (set OPENAI_API_KEY or UPSTREAM_BASE_URL for a real one)" if demo else "the provider"
    key_file = f"{config.data_dir}/admin.key"
    shown, admin = (
        (key_file, f"$(cat {key_file})") if config.admin_key is None else ("the one you configured", "ADMIN_KEY")
    )
    intro, key_header = ["Try it:"], []
    if config.auth.mode == "keys":
        intro = ["Requests need a key here. Try it:", f"  KEY=$({sys.argv[0]} keys create --user me --name first)"]
        key_header = ['    -H "Authorization: Bearer $KEY" \\']
    lines = [
        "",
        f"Sidegate is running; {answers} answers.",
        "",
        f"  OPENAI_BASE_URL=http://{data}/v1",
        f"  admin key: {admin_key(config, Path(config.data_dir))}   ({shown})",
        f"  metrics and health: http://{ops}/metrics /livez /readyz",
        "",
        *intro,
        f"  curl -i http://{data}/v1/chat/completions -H 'Content-Type: application/json' \\",
        *key_header,
        """    -d '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'""",
        "and read its trace by the x-sidegate-trace-id of the answer:",
        f'  curl http://{data}/v1/traces/TRACE_ID -H "Authorization: Bearer {admin}"',
        "",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
