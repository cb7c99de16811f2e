"""Applies a changed configuration while requests run.

    files changed, or SIGHUP --> load --> compile --> assemble --> switch
                                 '----- a thread ---'              one step of the event loop

Configuration, policy, layers, prices and secrets are reloaded together. A running request keeps the version that it
began with. Keys that cannot change in a running process keep their value and are named in a warning.

Failure mode: if anything cannot be read, compiled or built, the current version stays in force, log and metrics report
it, and the next file change or SIGHUP tries again. The log names keys, never values.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from proxy.app import App
from proxy.config.changes import as_far_as_possible, changed_keys, fallen_back, is_fixed
from proxy.config.layers import LayersError
from proxy.config.load import Loaded
from proxy.config.named_files import named_files
from proxy.config.problems import ConfigError
from proxy.config.schema import Config
from proxy.metrics import Sample
from proxy.policy.rules import RuleError
from proxy.process import generation
from proxy.process.watch import Watch, stamps
from proxy.upstream.pricing import PriceTableError

Result = Literal["success", "unchanged", "failure"]
_LOOK_AGAIN_S: Final = 2.0
"""With `server.watch_s: 0`, how often to check whether that has changed."""
_log = logging.getLogger("sidegate.reload")


class Reload:
    """`load`: reads the configuration. `completed`: adds process-specific values; returns it and the admin key."""

    def __init__(
        self,
        app: App,
        loaded: Loaded,
        *,
        load: Callable[[], Loaded],
        completed: Callable[[Loaded], Awaitable[tuple[Config, str]]],
        in_force: Callable[[Config], None],
    ) -> None:
        self._app = app
        self._loaded = loaded
        self._load = load
        self._completed = completed
        self._in_force = in_force
        self._watch = Watch((*loaded.files, *named_files(loaded.config).values()))
        self._asked = asyncio.Event()
        self._results: dict[Result, int] = {"success": 0, "unchanged": 0, "failure": 0}
        self._is_good = True
        self._succeeded_at = time.time()
        app.metrics.at_scrape(self.samples)

    def ask(self) -> None:
        """Request a reload without a file change."""
        self._asked.set()

    async def run(self) -> None:
        """Reload on every file change or request, until cancelled."""
        while True:
            await self._until_there_is_a_reason()
            await self.once()

    async def once(self) -> Result:
        """Reload everything and apply what changed."""
        before = await asyncio.to_thread(stamps, self._watch.files)
        files: Iterable[Path] = self._watch.files
        result: Result = "failure"
        try:
            loaded = await asyncio.to_thread(self._load)
            files = (*loaded.files, *named_files(loaded.config).values())
            if problems := list(fallen_back(self._loaded, loaded)):
                raise ConfigError(problems)
            result = await self._take_over(loaded)
            self._loaded = loaded
        except ConfigError as error:
            files = {*files, *error.files}
            _refuse([str(problem) for problem in error.problems])
        except (LayersError, PriceTableError, RuleError, OSError) as error:
            _refuse(str(error).splitlines())
        except Exception:
            _log.exception("the configuration cannot be applied; the current one stays in force")
        self._watch.note_read(files, before)
        self._results[result] += 1
        self._is_good = result != "failure"
        if self._is_good:
            self._succeeded_at = time.time()
        return result

    def samples(self) -> Iterable[Sample]:
        """Return the metrics."""
        for result, count in self._results.items():
            text = "Configuration reloads."
            yield Sample("counter", "sidegate_config_reloads", text, {"result": result}, count)
        text = "1 unless the latest configuration was refused and an older one is in force."
        yield Sample("gauge", "sidegate_config_last_reload_successful", text, {}, self._is_good)
        text = "When the configuration in force was last read, in seconds since 1970."
        yield Sample("gauge", "sidegate_config_last_success_timestamp_seconds", text, {}, self._succeeded_at)
        labels = {"version": self._app.current.version}
        text = "1; `version` names the settings and files in force, without secrets."
        yield Sample("gauge", "sidegate_config_info", text, labels, 1)

    async def _until_there_is_a_reason(self) -> None:
        while not self._asked.is_set():
            period_s = self._app.config.server.watch_s
            with suppress(TimeoutError):
                async with asyncio.timeout(period_s or _LOOK_AGAIN_S):
                    await self._asked.wait()
            if period_s and await asyncio.to_thread(self._watch.has_changed):
                return
        self._asked.clear()

    async def _take_over(self, loaded: Loaded) -> Result:
        app = self._app
        wanted, admin_key = await self._completed(loaded)
        config = as_far_as_possible(app.config, wanted)
        compiled = await asyncio.to_thread(generation.compiled, config, app.current)
        changed = list(changed_keys(app.config, wanted))
        ignored = [name for name in changed if is_fixed(name)]
        contents = [
            name for name, digest in compiled.digests.items() if digest != app.current.compiled.digests.get(name)
        ]
        changed = sorted({name for name in changed if name not in ignored} | set(contents))
        for problem in loaded.warnings if changed else ():
            _log.warning("configuration", extra={"problem": str(problem)})
        if ignored:
            _log.warning("keys that change only with a restart keep their value", extra={"keys": ignored})
        if not changed:
            _log.info("the configuration is unchanged")
            return "unchanged"
        await asyncio.to_thread(compiled.policies.prepare)
        await app.switch(config, compiled, admin_key)
        self._in_force(config)
        _log.info("the configuration was reloaded", extra={"keys": changed})
        return "success"


def _refuse(problems: list[str]) -> None:
    _log.error("the configuration is invalid; the current one stays in force", extra={"problems": problems})
