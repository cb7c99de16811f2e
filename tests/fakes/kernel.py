"""What the kernel of this machine can do."""

import ctypes
import mmap
from pathlib import Path

HUGE_PAGE_BYTES = 2 << 20


def can_collapse() -> bool:
    """Whether memory can be moved to huge pages of 2 MiB: Linux from 6.1 on, not everywhere in a container."""
    settings = Path("/sys/kernel/mm/transparent_hugepage")
    if not settings.exists() or int((settings / "hpage_pmd_size").read_text()) != HUGE_PAGE_BYTES:
        return False
    if "[never]" in (settings / "enabled").read_text():
        return False
    with mmap.mmap(-1, 2 * HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[:] = bytes(len(memory))
        start = address(memory)
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return advise(start + -start % HUGE_PAGE_BYTES, HUGE_PAGE_BYTES, 25) == 0


def address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
