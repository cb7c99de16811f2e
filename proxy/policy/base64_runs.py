"""Runs of base64 in a text, whatever they stand for: 40 characters or more of its alphabets, URL-safe ones included.

They are what random letters look like, in which automata meet ever new states, so whoever scans asks first.

Rule of the file: at the cost of a table look-up, no pattern is run.
"""

from typing import Final

SHORTEST: Final = 40
_CHARACTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_MARKED: Final = bytes(code in _CHARACTERS for code in range(256))
_RUN: Final = b"\1" * SHORTEST
_PIECE_BYTES: Final = 1 << 18
_ALPHABET: Final = bytes(sorted(_CHARACTERS))
_SAMPLED: Final = 61
"""Every how many bytes one is looked at; no usual length of a line is a multiple of it."""


def may_hold_run(data: bytes) -> bool:
    """Tell whether a run is in `data`; half the cost of looking for it.

    Piece by piece, as the interpreter does nothing else meanwhile.
    """
    for at in range(0, len(data), _PIECE_BYTES):
        if _RUN in data[at : at + _PIECE_BYTES + SHORTEST].translate(_MARKED):
            return True
    return False


def is_mostly_runs(data: bytes) -> bool:
    """Tell by a sample whether `data` has so little else in it that about half of it or more may be runs.

    In prose, code and JSON, without their spaces too, a fifth of all characters and more are of no such alphabet.
    """
    sample = data[::_SAMPLED]
    return len(sample.translate(None, _ALPHABET)) * 8 < len(sample)


def ends_in_run(data: bytes) -> bool:
    """Tell whether `data` ends in a run. Nearly every text has a space among its last 40 characters."""
    tail = data[-SHORTEST:]
    return b" " not in tail and tail.translate(_MARKED) == _RUN
