"""The directory follows its source, remembers what it knew, and never makes a request wait for long."""

import asyncio
import logging
import threading
from datetime import UTC, datetime

import pytest

from proxy.config.project import DEFAULT
from proxy.config.projects import Projects
from proxy.errors import DatabaseUnavailable, PermissionDenied
from proxy.projects.directory import Directory
from proxy.projects.store import Answer, ProjectRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NO_CACHE, CACHE = {"features": {"enableCache": False}}, {"features": {"enableCache": True}}


class Source:
    """Projects in memory; `away`: nobody answers."""

    def __init__(self, **projects):
        self.projects = projects
        self.away = False
        self.asked = []

    async def all(self):
        return self._answer("all")

    async def changed_since(self, moment, look_back):
        return self._answer("changed")

    def _answer(self, what):
        if self.away:
            raise DatabaseUnavailable("away")
        self.asked.append(what)
        return Answer([ProjectRow(name, config) for name, config in self.projects.items()], NOW)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source():
    return Source(a=CACHE)


@pytest.fixture
def directory(source, clock, tmp_path):
    return Directory(Projects(), source, kept_in=tmp_path / "projects.json", clock=clock)


async def test_get_when_read_then_what_the_project_says_and_default_for_others(directory):
    assert directory.get("a") is DEFAULT
    await directory.refresh()
    assert directory.get("a").features.enable_cache
    assert directory.get("b") is DEFAULT
    assert len(directory) == 1


async def test_quota_rules_when_a_project_has_some_then_they_are_its_json(directory, source):
    source.projects = {"strict": {"quota": {"onDatabaseOutage": "closed"}}, "plain": NO_CACHE, "odd": [1]}
    await directory.refresh()
    assert directory.quota_rules("strict") == '{"onDatabaseOutage":"closed"}'
    assert [directory.quota_rules(name) for name in ("plain", "odd", "unknown")] == [None] * 3


async def test_active_when_the_project_has_ended_then_refused_also_after_a_start_without_the_database(
    directory, source, clock, tmp_path
):
    source.projects["a"] = None
    await directory.refresh()
    later = Directory(Projects(), source, kept_in=tmp_path / "projects.json", clock=clock)
    later.recall()
    for known in (directory, later):
        with pytest.raises(PermissionDenied) as caught:
            known.active("a")
        assert caught.value.code == "project_archived"
        assert known.active("b") is DEFAULT
    assert directory.quota_rules("a") is None
    source.projects["a"] = CACHE
    await directory.refresh()
    assert directory.active("a").features.enable_cache


async def test_get_when_nothing_changed_then_the_same_object(directory, source):
    await directory.refresh()
    before = directory.get("a")
    source.projects["a"] = {"features": dict(CACHE["features"])}
    await directory.refresh()
    assert directory.get("a") is before
    source.projects["a"] = NO_CACHE
    await directory.refresh()
    assert not directory.get("a").features.enable_cache
    assert source.asked == ["all", "changed", "changed"]


async def test_refresh_when_time_for_a_reload_then_deleted_projects_are_forgotten(directory, source, clock):
    await directory.refresh()
    del source.projects["a"]
    await directory.refresh()
    assert directory.get("a").features.enable_cache
    clock.now += 61
    await directory.refresh()
    assert directory.get("a") is DEFAULT
    assert source.asked == ["all", "changed", "all"]


@pytest.mark.parametrize("admission", [{"priority": "critical"}, {"priorityHeader": True}], ids=str)
async def test_critical_when_some_project_may_be_then_it_is_known_until_the_last_of_them_changes_or_goes(
    directory, source, clock, admission
):
    await directory.refresh()
    assert not directory.has_critical
    for leaves in (lambda: source.projects.update(b={}), lambda: source.projects.pop("b")):
        source.projects["b"] = {"admission": admission}
        await directory.refresh()
        assert directory.has_critical
        leaves()
        clock.now += 61
        await directory.refresh()
        assert not directory.has_critical


async def test_recall_when_the_database_is_away_then_what_was_last_known_counts(directory, source, clock, tmp_path):
    await directory.refresh()
    source.away = True
    later = Directory(Projects(), source, kept_in=tmp_path / "projects.json", clock=clock)
    assert not later.is_ready
    later.recall()
    assert later.is_ready
    assert later.get("a").features.enable_cache
    with pytest.raises(DatabaseUnavailable):
        await later.refresh()
    assert later.get("a").features.enable_cache
    assert (tmp_path / "projects.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": 1}', b"\xff"], ids=str)
async def test_recall_when_the_file_is_damaged_then_the_rest_counts(directory, tmp_path, content):
    (tmp_path / "projects.json").write_bytes(content)
    directory.recall()
    assert directory.get("a") is DEFAULT


async def test_keep_when_the_disk_refuses_then_it_is_said_and_settings_count(source, clock, tmp_path, caplog):
    directory = Directory(Projects(), source, kept_in=tmp_path / "missing" / "projects.json", clock=clock)
    await directory.refresh()
    assert directory.get("a").features.enable_cache
    assert "cannot be saved" in caplog.text


async def test_ready_when_nobody_answers_then_it_waits_until_first_wait_is_over(source, tmp_path):
    loop = asyncio.get_running_loop()
    directory = Directory(Projects(first_wait_s=0.05), source, kept_in=None, clock=loop.time)
    assert not directory.is_ready
    await directory.ready()
    assert directory.is_ready


async def test_run_when_the_source_comes_back_then_requests_go_on(source, tmp_path):
    source.away = True
    directory = Directory(Projects(), source, kept_in=None, clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(directory.run())
    waiting = asyncio.create_task(directory.ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    source.away = False
    await waiting
    assert directory.get("a").features.enable_cache
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_refresh_when_there_are_too_many_projects_then_the_first_are_kept_and_it_is_said(clock, caplog):
    source = Source(**{str(number): CACHE for number in range(3)})
    directory = Directory(Projects(max_projects=2), source, kept_in=None, clock=clock)
    await directory.refresh()
    assert len(directory) == 2
    assert "more projects" in caplog.text


async def test_refresh_when_there_are_too_many_then_a_change_of_a_known_project_counts_all_the_same(clock):
    source = Source(a=CACHE)
    directory = Directory(Projects(max_projects=1), source, kept_in=None, clock=clock)
    await directory.refresh()
    source.projects = {"new": CACHE, "a": None}
    await directory.refresh()
    assert directory.get("a").is_archived
    assert directory.get("new") is DEFAULT


async def test_refresh_when_time_for_a_reload_then_deleted_projects_are_in_nobodys_way(clock):
    source = Source(a=CACHE)
    directory = Directory(Projects(max_projects=1), source, kept_in=None, clock=clock)
    await directory.refresh()
    source.projects = {"new": CACHE}
    clock.now += 61
    await directory.refresh()
    assert directory.get("new").features.enable_cache
    assert directory.get("a") is DEFAULT


async def test_refresh_when_a_document_is_new_then_it_is_read_in_a_thread(directory, source):
    readers = set()

    class Document(dict):
        def get(self, *arguments):
            readers.add(threading.current_thread())
            return super().get(*arguments)

    source.projects["a"] = Document(CACHE)
    await directory.refresh()
    assert directory.get("a").features.enable_cache
    assert readers and threading.current_thread() not in readers


async def test_refresh_when_a_member_is_wrong_then_it_is_named_once_and_the_rest_counts(directory, source, caplog):
    source.projects["a"] = {"features": {"enableCache": True, "enableCach": True}}
    with caplog.at_level(logging.WARNING):
        await directory.refresh()
        await directory.refresh()
    assert [entry.reason for entry in caplog.records] == [
        "features has no member enableCach; did you mean enableCache?"
    ]
    assert directory.get("a").features.enable_cache
