"""Guesses which key was meant by a name that does not exist, for the file and for the environment alike.

Rule of the file: names only, never values. Keys of the section that was named come first, because whoever wrote
`upstream.url` found the right section: a closer match elsewhere (`database.url`) would be misleading.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from proxy.config.keys import KEYS, SECTIONS, children
from proxy.config.names import closeness, nearest
from proxy.config.problems import KeyPath

_MOST: Final = 3
_OTHER_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "addr": "listen",
        "address": "listen",
        "bind": "listen",
        "dsn": "url",
        "log": "logging",
        "logs": "logging",
        "token": "key",
        "uri": "url",
    }
)
"""What other programs call it."""


def meant(above: KeyPath, word: str) -> list[KeyPath]:
    """Return the paths that `word` below the section `above` may stand for, at most three; none if nothing is close.

    In this order: what it is called here if other programs call it so; a slip of a name in that section, unless another
    one anywhere is closer; the same name deeper in the section; names there of which it is a part; a slip of any name.
    """
    if found := _inside(above, _OTHER_WORDS.get(word.lower(), "")):
        return found
    here = nearest(word, children(above))
    edits = closeness(word, here) if here else None
    if here is None or edits is None:
        return _inside(above, word) or _anywhere(above, word)
    return _anywhere(above, word, edits - 1) or [(*above, here)]


def meant_by(words: Sequence[str], above: KeyPath = ()) -> list[KeyPath]:
    """Return what a whole path of names may stand for; the path itself if it exists. O(len(words)) searches."""
    if not words or above in KEYS:
        return [above]
    path = (*above, words[0])
    starts = [path] if path in KEYS or path in SECTIONS else meant(above, words[0])
    return [found for start in starts for found in meant_by(words[1:], start)][:_MOST]


def _inside(above: KeyPath, word: str) -> list[KeyPath]:
    """Return what lies below a section and bears this name, else its names that have the word as a part."""
    if not word:
        return []
    below = [path for path in (*SECTIONS, *KEYS) if path[: len(above)] == above and path[-1:] == (word.lower(),)]
    parts = [(*above, name) for name in children(above) if above and word.lower() in name.split("_")]
    return sorted(below)[:_MOST] or parts[:_MOST]


def _anywhere(above: KeyPath, word: str, most: int | None = None) -> list[KeyPath]:
    """Return the closest names of other sections. `most`: further ones do not matter."""
    leaves = {path: closeness(word, path[-1], most) for path in (*SECTIONS, *KEYS) if path and path[:-1] != above}
    best = min((far for far in leaves.values() if far is not None), default=None)
    return sorted(path for path, far in leaves.items() if far is not None and far == best)[:_MOST]
