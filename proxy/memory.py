"""Memory that nobody uses any more, back to the system."""

import ctypes
import gc
from contextlib import suppress


def tidy() -> None:
    """Collect what hangs together in cycles; give back what freed objects have left in the arenas of the C library.

    To be called when much was thrown away at once, and apart from the event loop. It stops other threads for the time
    of the collection: some milliseconds where what lives for ever is frozen.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone can do that; threads that compile rules leave megabytes there
        ctypes.CDLL(None).malloc_trim(0)
