"""Maps the compiled modules of a start before Python's memory grows between them.

Python takes memory in pieces of 1 MiB from the highest free address on, where the loader puts compiled modules as well.
Mixed, hardly two pieces are neighbours, and huge pages (`huge_pages`) need 2 MiB. With the modules first, what is
imported afterwards lies in one range: 48 MB of 58 are on huge pages instead of 37, for 0.96 of the CPU of a request at
100 per second (bench/run.py; two processes asked in turns).

Failure mode: none to handle. What cannot be found or mapped here is left to its import, which says so.

Source: CPython, Objects/obmalloc.c (arenas); dlopen(3).
"""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("asyncpg", "httptools", "orjson", "re2", "uvloop")
_OF_PYTHON: Final = (
    "_asyncio", "_ctypes", "_heapq", "_posixsubprocess", "_queue", "_ssl", "fcntl", "mmap", "resource", "termios",
    "unicodedata",
)  # fmt: skip
"""Those that the configuration does not need; it is read before."""


def map_extensions() -> None:
    """Map what a start will import, without importing it. Costs nothing: every import finds its module mapped."""
    for file in _files():
        with suppress(OSError):
            ctypes.CDLL(str(file))


def _files() -> Iterator[Path]:
    for name in (*_OF_PYTHON, *_PACKAGES):
        spec = find_spec(name)
        if spec is None:
            continue
        if spec.submodule_search_locations is None:
            if spec.has_location and spec.origin is not None:
                yield Path(spec.origin)
            continue
        for place in spec.submodule_search_locations:
            yield from sorted(Path(place).rglob(f"*{EXTENSION_SUFFIXES[0]}"))
