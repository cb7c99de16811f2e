"""Memory of the process: what it has, what it may have, and what nobody uses any more, back to the system.

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
_UNLIMITED: Final = 1 << 60
"""Version 1 writes the absence of a limit as about 2^63."""


def tidy() -> None:
    """Collect what hangs together in cycles; give back what freed objects have left in the arenas of the C library.

    To be called when much was thrown away at once, and apart from the event loop. It stops other threads for the time
    of the collection: some milliseconds where what lives for ever is frozen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone can do that; threads that compile rules leave megabytes there
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Return the memory that this process has; 0 where the system does not tell. Some 20 microseconds."""
    try:
        return int(_RESIDENT.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def limit_bytes(groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> int | None:
    """Return the least memory limit of the control groups that this process is in; `None`: there is none."""
    with suppress(OSError):
        limits = [limit for line in membership.read_text().splitlines() for limit in _limits(groups, line)]
        return min(limits, default=None)
    return None


def _limits(groups: Path, line: str) -> list[int]:
    """Return the limits of a group and of those around it. In a container its own may be mounted as the top."""
    _, controllers, path = line.split(":", 2)
    top, name = groups, "memory.max"
    if controllers:
        if "memory" not in controllers.split(","):
            return []
        top, name = groups / "memory", "memory.limit_in_bytes"
    parts = path.strip("/").split("/")
    found = []
    for depth in range(len(parts) + 1):
        with suppress(OSError, ValueError):  # `max` is no number
            found.append(int(top.joinpath(*parts[:depth], name).read_text()))
    return [limit for limit in found if 0 < limit < _UNLIMITED]
