"""Which member names of an object could be secrets themselves, as clients and tools choose names, too.

Rule of the file: lengths decide nearly always, because this is asked for every object of an answer.
"""

from collections.abc import Iterable
from typing import Final

SHORTEST: Final = 20
"""Below that a name is none: an AWS access key has 20 characters, `reasoning_content` 17."""


def telling(names: Iterable[str]) -> list[str]:
    """Return the names to be scanned; words of small letters are none."""
    return [name for name in names if len(name) >= SHORTEST and not _is_words(name)]


def _is_words(name: str) -> bool:
    return name.islower() and name.replace("_", "").isalpha()
