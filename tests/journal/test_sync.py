"""The thread that syncs, apart from the journal: what only its timing can show."""

import os
from pathlib import Path
from threading import Event

from proxy.journal.sync import Syncer


class _Overtaken(Event):
    """Set, by whoever stops the thread, in the last moment before the thread clears it."""

    def __init__(self, stopping: Event) -> None:
        super().__init__()
        self._stopping = stopping

    def clear(self) -> None:
        self._stopping.set()
        self.set()
        super().clear()


def test_stop_when_the_thread_is_about_to_clear_its_call_then_it_ends_all_the_same(tmp_path: Path) -> None:
    directory_fd = os.open(tmp_path, os.O_RDONLY)
    syncer = Syncer("interval", 0.001, directory_fd)
    first_call, syncer._dirty = syncer._dirty, _Overtaken(syncer._stopping)
    first_call.set()
    syncer._thread.join(5)
    ended = not syncer._thread.is_alive()
    syncer.stop()
    os.close(directory_fd)
    assert ended
