"""Memory of the process: its resident size, its limit, and returning unused memory to the system.

Source: proc(5), statm; Linux kernel, "Control Group v2", memory.max; cgroup-v1, memory.limit_in_bytes.
"""

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_RESIDENT: Final = Path("/proc/self/statm")
_YOUNG: Final = (5_000, 2)
"""A collection of what is young takes 1 ms; with 20,000 it took 5 to 10 where a body has very many objects, and all of
them together no less (timeit)."""
_OLD: Final = 600
_NEVER: Final = 1 << 30
_UNLIMITED: Final = 1 << 60
"""Version 1 represents the absence of a limit as about 2^63."""


def tidy() -> None:
    """Collect reference cycles, and return freed memory in the C library's arenas to the system.

    Call it after much was released at once, outside the event loop. It stops other threads during the collection: some
    milliseconds, provided that permanent objects are frozen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only; threads that compile rules leave megabytes there
        ctypes.CDLL(None).malloc_trim(0)


def settle() -> None:
    """Exclude from collections what the start has created: 300,000 objects, for which every thread stops for 25 ms.

    It is not collected first, as nearly all of it lives to the end.
    """
    gc.freeze()


def collect_rarely() -> None:
    """Enable the garbage collector, which was off until now, at long intervals."""
    gc.freeze()
    gc.set_threshold(*_YOUNG, _OLD)
    gc.enable()


def put_off_full_collections() -> None:
    """Suspend full collections until `allow_full_collections`; young objects are collected as before.

    With a million live lists, each on a page of its own, a full collection took 1.1 s. The threshold counts the calls.
    Only for the event loop.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, old + 1 if old >= _NEVER else _NEVER)


def allow_full_collections() -> None:
    """End one `put_off_full_collections`. Soon after the last one, full collections happen again."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, old - 1 if old > _NEVER else _OLD)


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 if the system does not report it. Takes some 20 microseconds."""
    try:
        return int(_RESIDENT.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def limit_bytes(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int | None:
    """Return the lowest memory limit of this process's control groups; `None`: no limit."""
    with suppress(OSError):
        limits = [limit for line in membership.read_text().splitlines() for limit in _limits(groups, line)]
        return min(limits, default=None)
    return None


def _limits(groups: Path, line: str) -> list[int]:
    """Return the limits of a group and its ancestors. In a container, its own group may be mounted as the root."""
    _, controllers, path = line.split(":", 2)
    top, name = groups, "memory.max"
    if controllers:
        if "memory" not in controllers.split(","):
            return []
        top, name = groups / "memory", "memory.limit_in_bytes"
    parts = path.strip("/").split("/")
    found = []
    for depth in range(len(parts) + 1):
        with suppress(OSError, ValueError):  # `max` is not a number
            found.append(int(top.joinpath(*parts[:depth], name).read_text()))
    return [limit for limit in found if 0 < limit < _UNLIMITED]
