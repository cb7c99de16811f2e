"""Long runs of base64 in a text: 40 or more characters of its alphabets, including the URL-safe one.

They look like random letters, for which automata keep building new states, so scanners check for them first.

Rule of the file: no patterns, only table look-ups.
"""

from typing import Final

SHORTEST: Final = 40
_CHARACTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_MARKED: Final = bytes(code in _CHARACTERS for code in range(256))
_RUN: Final = b"\1" * SHORTEST
_PIECE_BYTES: Final = 1 << 18
_ALPHABET: Final = bytes(sorted(_CHARACTERS))
_SAMPLED: Final = 61
"""Distance of the sampled bytes; not a multiple of any common line length."""


def may_hold_run(data: bytes) -> bool:
    """Tell whether `data` contains a run, at half the cost of a pattern search.

    Works in pieces, as it holds the interpreter lock.
    """
    for at in range(0, len(data), _PIECE_BYTES):
        if data[at : at + _PIECE_BYTES + SHORTEST].translate(_MARKED).find(_RUN) >= 0:
            return True
    return False


def is_mostly_runs(data: bytes) -> bool:
    """Tell by a sample whether about half or more of `data` may be runs.

    In prose, code and JSON, even without spaces, at least a fifth of all characters are outside these alphabets.
    """
    sample = data[::_SAMPLED]
    return len(sample.translate(None, _ALPHABET)) * 8 < len(sample)


def ends_in_run(data: bytes) -> bool:
    """Tell whether `data` ends in a run. Nearly every text has a space in its last 40 characters."""
    tail = data[-SHORTEST:]
    return b" " not in tail and tail.translate(_MARKED) == _RUN
