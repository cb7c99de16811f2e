"""The projects as known to this replica: read by every request, from memory.

    PostgreSQL --every poll_s: what changed--> Directory --get--> ProjectSettings
                --every reload_s: everything-->    |
                                                   `--> projects.json: last known, for a start without PostgreSQL

A project without settings uses the defaults, and so do all while nothing is known; requests that arrive before the
first answer wait for it, up to `first_wait_s` after the start. An archived project is known as such, and its requests
are refused.

Failure mode: while PostgreSQL is unavailable, the last known settings apply. An invalid member of a document is ignored
and logged once.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import orjson

from proxy.config.project import ARCHIVED, DEFAULT, ProjectSettings, parse
from proxy.config.projects import Projects
from proxy.errors import DatabaseUnavailable, PermissionDenied
from proxy.projects.store import Answer, ProjectRow

_LOOK_BACK: Final = timedelta(seconds=30)
"""How long a transaction that changes a project may take to be noticed at once; otherwise the next reload does."""
_FIRST_TRIES_S: Final = 0.1
_Read = tuple[str, bytes, ProjectSettings, Sequence[str]]
"""A project's id, document, settings and their problems."""
_log = logging.getLogger("sidegate.projects")


class ProjectSource(Protocol):
    """The part of the store that the directory uses. Both methods raise DatabaseUnavailable."""

    async def all(self) -> Answer:
        """Return all projects with settings."""

    async def changed_since(self, moment: datetime, look_back: timedelta) -> Answer:
        """Return the projects that changed."""


class Directory:
    """The settings of all projects. `kept_in`: the file that stores them, `None` for none."""

    def __init__(
        self, settings: Projects, source: ProjectSource, *, kept_in: Path | None, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._source = source
        self._kept_in = kept_in
        self._clock = clock
        self._started = clock()
        self._known: dict[str, ProjectSettings] = {}
        self._documents: dict[str, bytes] = {}
        self.has_critical = False
        """Some project allows critical requests."""
        self._heard: datetime | None = None
        self._reload_at = 0.0
        self._first = asyncio.Event()

    def __len__(self) -> int:
        return len(self._known)

    def follow(self, settings: Projects) -> None:
        """Apply a changed configuration."""
        self._settings = settings

    def get(self, project_id: str) -> ProjectSettings:
        """Return the current settings of a project: the same object until its document changes. Never waits."""
        return self._known.get(project_id, DEFAULT)

    def active(self, project_id: str) -> ProjectSettings:
        """Return the same. Raises PermissionDenied if the project is archived."""
        settings = self.get(project_id)
        if settings.is_archived:
            raise PermissionDenied("This project is archived: nothing is served to it.", code="project_archived")
        return settings

    def quota_rules(self, project_id: str) -> str | None:
        """Return a project's member `quota` as JSON, `None` if it has none. Decodes the document at every call."""
        document = self._documents.get(project_id)
        config = None if document is None else orjson.loads(document)
        rules = config.get("quota") if isinstance(config, dict) else None
        return None if rules is None else orjson.dumps(rules).decode()

    @property
    def is_ready(self) -> bool:
        """True once the projects were read, from PostgreSQL or the file, or the wait is over."""
        return self._first.is_set() or self._clock() - self._started >= self._settings.first_wait_s

    async def ready(self) -> None:
        """Wait until `is_ready`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._started + self._settings.first_wait_s - self._clock()):
                await self._first.wait()

    def recall(self) -> None:
        """Load the settings that an earlier process saved. An unreadable file is ignored."""
        if self._kept_in is None:
            return
        try:
            documents = orjson.loads(self._kept_in.read_bytes())
            rows = [ProjectRow(str(project_id), config) for project_id, config in documents.items()]
        except (OSError, ValueError, AttributeError):
            return
        self._take(self._new_in(rows))
        self._first.set()

    async def run(self) -> None:
        """Poll PostgreSQL until cancelled; until its first answer, frequently."""
        while True:
            try:
                await self.refresh()
            except DatabaseUnavailable:
                pass
            await asyncio.sleep(self._settings.poll_s if self._heard else min(_FIRST_TRIES_S, self._settings.poll_s))

    async def refresh(self) -> None:
        """Poll once. Raises DatabaseUnavailable."""
        now = self._clock()
        if self._heard is None or now >= self._reload_at:
            answer = await self._source.all()
            self._reload_at = now + self._settings.reload_s
            changed = self._drop_all_but({row.id for row in answer.rows})  # first: they may be in the way of new ones
        else:
            answer = await self._source.changed_since(self._heard, _LOOK_BACK)
            changed = False
        if answer.rows:
            changed |= self._take(await asyncio.to_thread(self._new_in, answer.rows))
        self._heard = answer.asked_at
        self._first.set()
        if changed:
            await asyncio.to_thread(self._keep, dict(self._documents))

    def _new_in(self, rows: Sequence[ProjectRow]) -> list[_Read]:
        """Read the documents that are not known yet. Patterns in them take up to 50 ms each to compile."""
        found: list[_Read] = []
        for row in rows:
            document = orjson.dumps(row.config, option=orjson.OPT_SORT_KEYS)
            if self._documents.get(row.id) != document:
                found.append((row.id, document, *((ARCHIVED, ()) if row.config is None else parse(row.config))))
        return found

    def _take(self, read: Sequence[_Read]) -> bool:
        """Apply new documents, as far as there is room for their projects; return whether there were any."""
        most, left_out = self._settings.max_projects, 0
        for project_id, document, settings, problems in read:
            if len(self._known) >= most and project_id not in self._known:
                left_out += 1
                continue
            self._known[project_id], self._documents[project_id] = settings, document
            for problem in problems:
                _log.warning("a project's setting is ignored", extra={"project": project_id, "reason": problem})
        if left_out:
            _log.warning("more projects than projects.max_projects", extra={"kept": most, "leftOut": left_out})
        if len(read) == left_out:
            return False
        self._rank()
        return True

    def _drop_all_but(self, ids: set[str]) -> bool:
        gone = self._known.keys() - ids
        for project_id in gone:
            del self._known[project_id], self._documents[project_id]
        if gone:
            self._rank()
        return bool(gone)

    def _rank(self) -> None:
        self.has_critical = any(settings.admission.may_be_critical for settings in self._known.values())

    def _keep(self, documents: dict[str, bytes]) -> None:
        """Save the settings: written to a new file, then renamed, so that the file is always complete."""
        if self._kept_in is None:
            return
        content = b"{%b}" % b",".join(orjson.dumps(name) + b":" + text for name, text in documents.items())
        beside = self._kept_in.with_suffix(".new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._kept_in)
        except OSError as error:
            _log.warning("the known settings of projects cannot be saved", extra={"reason": type(error).__name__})
