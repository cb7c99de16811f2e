"""Puts the memory that requests touch on huge pages.

A request touches some thousand places all over the heap. With little traffic the caches are cold, and with pages of 4
KiB nearly every access also costs a walk through the page tables, on a virtual machine through two of them. Huge pages
save 12 % of the latency added at 100 requests per second, and 11 % of the CPU of such a request (bench/run.py; two
processes in turns).

Rule of the file: a block is moved only if three quarters of it are resident, so that the process hardly grows (1 MB of
82), and unused stacks of threads stay unused. The system's own way (`MADV_HUGEPAGE`, khugepaged) does not check that.

Failure mode: none to handle. Without support (Linux before 6.1, `transparent_hugepage/enabled: never`, another system)
nothing is moved.

Source: madvise(2), MADV_COLLAPSE; proc_pid_maps(5), proc_pid_pagemap(5); Linux, "Transparent Hugepage Support".
"""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_COLLAPSE: Final = 25
_PAUSE_S: Final = 0.001
"""After each block: whoever needs a new page meanwhile waits for the kernel's lock, for all blocks that follow."""
_ENTRY_BYTES: Final = 8
_PRESENT: Final = (0x80, 0x81)
"""Highest byte of the entry of a page that is in memory: mapped elsewhere too, or only here."""
_SETTINGS: Final = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS: Final = Path("/proc/self/maps")
_PAGES: Final = Path("/proc/self/pagemap")


def use_huge_pages() -> int:
    """Move every block that is mostly in use; return how many bytes are on huge pages now.

    Takes a tenth of a second of CPU the first time, for 25 blocks, and one millisecond when none is left to move. Call
    it on a thread: others run meanwhile, but who touches the block that is just being moved waits for its copy.
    """
    moved = 0
    with suppress(OSError, ValueError, AttributeError):
        if "[never]" in (_SETTINGS / "enabled").read_text():
            return 0
        block_bytes = int((_SETTINGS / "hpage_pmd_size").read_text())
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, size in list(_used_blocks(block_bytes)):
            for block in range(start, start + size, block_bytes):
                # What was unmapped since is refused, and moving what was mapped in its place does no harm.
                if advise(block, block_bytes, _COLLAPSE) == 0:
                    moved += block_bytes
                time.sleep(_PAUSE_S)
    return moved


def _used_blocks(block_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield address and size of blocks to move, neighbours together."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    entries_bytes = block_bytes // page_bytes * _ENTRY_BYTES
    enough = block_bytes // page_bytes * 3 // 4
    with _PAGES.open("rb", buffering=0) as pages:
        for begin, end in _anonymous():
            first = last = -(-begin // block_bytes) * block_bytes
            while last + block_bytes <= end:
                pages.seek(last // page_bytes * _ENTRY_BYTES)
                flags = pages.read(entries_bytes)[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
                is_used = sum(map(flags.count, _PRESENT)) >= enough
                if not is_used and last > first:
                    yield first, last - first
                last += block_bytes
                first = first if is_used else last
            if last > first:
                yield first, last - first


def _anonymous() -> Iterator[tuple[int, int]]:
    """Yield begin and end of the process's own memory that no file backs."""
    for line in _MAPS.read_text().splitlines():
        addresses, access, _, _, inode, *name = line.split(maxsplit=5)
        if access == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            begin, end = addresses.split("-")
            yield int(begin, 16), int(end, 16)
