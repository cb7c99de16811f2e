"""Suggests the intended name for a misspelt one.

Rule of the file: pure functions over words. The measure is the optimal string alignment distance: inserted, missing,
replaced and swapped neighbouring letters each count one. Case and the choice between `-`, `_` and nothing do not count,
because `dataDir`, `data-dir` and `data_dir` are one name to a reader. A suggestion is only made when it is close; a
wild guess would send the reader to the wrong place.

Source: R. A. Wagner and M. J. Fischer, "The String-to-String Correction Problem", with adjacent transpositions.
"""

from collections.abc import Iterable

MOST_GUESSED = 100
"""To find what a misspelt name means takes up to 3 ms: after so many mistakes, others are told without a guess."""
_SHOWN_NAME = 64


def distance(left: str, right: str, limit: int | None = None) -> int:
    """Count the single-letter edits (insert, delete, replace, swap neighbours) between two words.

    `limit`: how far matters; beyond it some greater number comes back, as soon as it is known.
    O(len * len) of what is left of them without the beginning and the end that they share; with a limit O(len * limit).
    """
    if limit is not None and abs(len(left) - len(right)) > limit:
        return limit + 1
    start = _shared(left, right)
    end = _shared(left[:start:-1], right[:start:-1])
    left, right = left[start : len(left) - end], right[start : len(right) - end]
    width = len(right)
    far = len(left) + width
    reach = far if limit is None else limit  # beginnings that differ more in length are further apart
    before: list[int] = []
    row = list(range(width + 1))
    for i, a in enumerate(left, 1):
        first = max(1, i - reach)
        current = [far] * (width + 1)
        if first == 1:
            current[0] = i
        for j in range(first, min(width, i + reach) + 1):
            b = right[j - 1]
            cost = min(row[j] + 1, current[j - 1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            current[j] = cost
        before, row = row, current
        if limit is not None and min(row) > limit:
            return limit + 1
    return row[-1]


def closeness(word: str, candidate: str, most: int | None = None) -> int | None:
    """Return how far `candidate` is from `word`, or None when it is too far to be what was meant.

    `most`: further ones do not matter either.
    """
    if len(word) > 2 * _SHOWN_NAME:
        return None
    allowed = max(1, min(len(word), len(candidate)) // 3)
    if abs(len(word) - len(candidate)) > allowed + 2:
        return None
    limit = allowed if most is None else min(allowed, most)
    edits = distance(word.lower(), candidate.lower(), limit)
    edits = min(edits, distance(_plain(word), _plain(candidate), min(edits, limit)))
    return edits if edits <= limit and edits < len(word) else None


def nearest(word: str, candidates: Iterable[str], most: int | None = None) -> str | None:
    """Return the closest candidate, the first of equally close ones, or None when none is close. `most`: edits."""
    best: tuple[tuple[int, int, int, int], str] | None = None
    # What begins alike is mostly what was meant; found early, it spares a long look at all the others.
    for place, name in sorted(enumerate(candidates), key=lambda pair: -_shared(word, pair[1])):
        edits = closeness(word, name, best[0][0] if best else most)
        if edits is not None:
            most_letters = best[0][1] if best and best[0][0] == edits else None
            rank = edits, distance(word.lower(), name.lower(), most_letters), abs(len(word) - len(name)), place
            best = min(best or (rank, name), (rank, name))
    return best[1] if best else None


def did_you_mean(suggestion: str | None) -> str:
    """Return the end of a message: empty when there is nothing to suggest."""
    return f"; did you mean {suggestion}?" if suggestion else ""


def shown(text: str, limit: int = _SHOWN_NAME) -> str:
    """Return text that somebody else wrote in a form that is safe in one line of a terminal: short and printable."""
    safe = "".join(letter if letter.isprintable() else "?" for letter in text[: limit + 1])
    return safe if len(safe) <= limit else safe[:limit] + "..."


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _shared(left: str, right: str) -> int:
    """Count the letters with which both begin."""
    for at, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return at
    return min(len(left), len(right))
