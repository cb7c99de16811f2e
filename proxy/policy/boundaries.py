"""Where a match may begin, depending on what precedes it.

A token begins where no letter, digit or underscore precedes it. An escape represents one character, whatever its last
letter is: in `\\nghp_...`, `%3Dghp_...` and `\\u0022ghp_...` the token begins after the escape. Letters of other
scripts are not part of a token and do not prevent one: `键ghp_...` is a token.

Rule of the file: at most `REACH` preceding bytes are read, so a stream has to keep no more than these.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

REACH: Final = 16
_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_UNDERSCORE: Final = ord("_")
_BARE: Final = _WORD - {_UNDERSCORE}
_DIGITS: Final = frozenset(b"0123456789")
_JOINS: Final = frozenset(b"-./,:#_+")
APART: Final = frozenset(range(256)) - _WORD - _JOINS
"""After any of these all boundaries hold, but before one of `_FOLDED`."""
_OTHER_WORDS: Final = (
    "public primary foreign cache sort partition publishable idempotency dedup lookup row max min total prompt num"
    " count completion input output page next continuation cancel cancellation eos bos pad unk csrf xsrf n by com sur"
    " over tres publickey sync delta resume cursor scroll"
).split()
_OTHER_INSIDE: Final = [word for word in _OTHER_WORDS if len(word) > 2]
"""Those that also count inside a longer name; the last letter of `ADMIN_` is not a word."""
_OTHER_APART: Final = "public primary foreign cache sort partition page continuation csrf xsrf sync".split()
"""Those that also count with a space behind them: `next page token: ...`."""
_OTHER: Final = re.compile(
    rf"(?:(?:(?<![A-Za-z\\])(?i:{'|'.join(_OTHER_WORDS)})|(?:{'|'.join(map(str.title, _OTHER_INSIDE))}))[_.-]?"
    rf"|(?<![A-Za-z\\])(?i:{'|'.join(_OTHER_APART)}) )\Z".encode()
)
"""Words before `key`, `token` or `pass` that make it the name of something else than a secret."""
_OTHER_ENDS: Final = tuple(word.encode() for word in {*_OTHER_WORDS, *_OTHER_APART})
_JOINTS: Final = (b"_", b".", b"-", b" ")
"""What may stand between such a word and the name."""
ESCAPES: Final = (
    r"(?:\\[nrtbfv0]|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|%(?:25)?[0-9a-fA-F]{2}|%5[Cc](?:[nrtbfv0]|u[0-9a-fA-F]{4})"
    r"|\[[0-9;]{0,4}m|%5[Bb][0-9;]{0,4}m)"
)
"""Escapes for one character in JSON or a URL, and colour codes of terminals. RE2 and `re` read it alike."""
_MARK: Final = re.compile(rb"[\\%\[]")
"""First characters of escapes."""
_NAME_BEFORE: Final = re.compile(rb"[A-Za-z0-9]*\Z")
_OF_ACCOUNT: Final = re.compile(rb"[0-9]{12}(?::|%3a)\Z")
"""Where the kind of a resource stands in its ARN: `...:123456789012:secret:name-a1B2c3`."""
_FOLDED: Final = ("\u017f".encode(), "\u212a".encode())
"""The long s and the sign of Kelvin: to `(?i)` an s and a k, but no word begins with them, for gates as for people."""
_KEY_OF_GIT: Final = b"signingkey"
"""The name under which Git has the number of a public key; others have secrets in `jwt.signingkey`."""
_GOES_ON: Final = _WORD | frozenset(b".-")
_COLONS: Final = (b":", b"%3a")
_FIRST_COLUMN: Final = re.compile(rb"(?:\A|[\r\n\"'+]|\\n)[0-9]{1,9},\Z")
"""The first column of a table, a number. Behind it, a comma does not make two numbers one."""
_RUN: Final = re.compile(rb"[A-Za-z0-9_]*")
_ESCAPE: Final = re.compile(ESCAPES.encode() + rb"\Z")


def anywhere(data: bytes, at: int) -> bool:
    """Accept every position; the pattern itself restricts where it begins."""
    return True


def word(data: bytes, at: int) -> bool:
    """Tell whether a word begins at `at`. A single underscore before it may be Markdown emphasis."""
    if at == 0 or data[at - 1] not in _WORD or _after_escape(data, at):
        return not data.startswith(_FOLDED, at)
    is_emphasis = data[at - 1] == _UNDERSCORE and (at == 1 or data[at - 2] not in _WORD or _after_escape(data, at - 1))
    return is_emphasis and not data.startswith(_FOLDED, at)


def alone(data: bytes, at: int) -> bool:
    """Tell whether a word begins at `at` that is not a later part of a longer name (`cache-key-...`) or host name.

    A line of a diff or a list may begin with a hyphen.
    """
    return word(data, at) and (at == 0 or data[at - 1] not in b"-." or word(data, at - 1))


def named(data: bytes, at: int) -> bool:
    """Tell whether the name of a secret begins at `at`, even inside a longer name that does not mean something else."""
    if data[at : at + 2].lower() == b"pw" and not _ends_name(data, at):
        return False
    before = data[max(0, at - REACH) : at].lower()
    if data.startswith(_KEY_OF_GIT, at) and _is_all_of_git(data, at, before):
        return False
    if before.endswith(_COLONS) and _OF_ACCOUNT.search(before) is not None:
        return False
    if not before.endswith(_OTHER_ENDS) and not (before[-1:] in _JOINTS and before[:-1].endswith(_OTHER_ENDS)):
        return True  # as nearly always, and in a fifth of the time
    return _OTHER.search(data, max(0, at - REACH), at) is None


def _is_all_of_git(data: bytes, at: int, before: bytes) -> bool:
    """Tell whether the name that begins at `at`, of Git's setting, is neither part of another one nor goes on."""
    follows = data[at + len(_KEY_OF_GIT) : at + len(_KEY_OF_GIT) + 1]
    is_alone = word(data, at) and before[-1:] not in _JOINTS[:3]
    return (is_alone or before.endswith(b"user.")) and not (follows and follows[0] in _GOES_ON)


def _ends_name(data: bytes, at: int) -> bool:
    """Tell whether what precedes two letters is of one kind with them: random letters often end in `pw`."""
    found = _NAME_BEFORE.search(data, max(0, at - REACH), at)
    before = found[0] if found else b""
    if not before:
        return True
    first, second = data[at : at + 1], data[at + 1 : at + 2]
    if before[-1:].isupper():
        same = first.isupper() and second.isupper()
    else:
        same = before[-1:].islower() and second.islower()
    return same and not any(byte in _DIGITS for byte in before)


def base64(data: bytes, at: int) -> bool:
    """Tell whether a run of base64 begins at `at`. A single plus or slash before it may belong to a diff or a path."""
    if at == 0 or data[at - 1] not in b"+/":
        return word(data, at)
    return word(data, at - 1) and (at == 1 or data[at - 2] not in b"+/")


def number(data: bytes, at: int) -> bool:
    """Tell whether a number begins at `at`: not preceded by a digit, a digit and one mark, or a word."""
    if at == 0 or data[at - 1] in APART:
        return not data.startswith(_FOLDED, at)
    if not word(data, at):
        return False
    if at < 2 or data[at - 1] not in _JOINS or data[at - 2] not in _DIGITS:
        return True
    return _FIRST_COLUMN.search(data, max(0, at - REACH), at) is not None


def next_place(data: bytes, at: int) -> int:
    """Return the first position after `at` where a word could begin; never skips one.

    Inside a word only an escape allows that, and all escapes begin with one of three characters.
    """
    run = _RUN.match(data, at)
    end = run.end() if run else at
    if end <= at + 1 or data[at] == _UNDERSCORE or _MARK.search(data, max(0, at - REACH), at):
        return at + 1
    return min(end + 1, len(data))


def may_follow_escape(data: bytes, at: int) -> bool:
    """Tell whether a word may begin at `at` because of an escape or underscore before it."""
    return at > 0 and (data[at - 1] == _UNDERSCORE or _MARK.search(data, max(0, at - REACH), at) is not None)


def is_bare(byte: int) -> bool:
    """Tell whether a word that begins with `byte` has neither escape nor underscore before it."""
    return byte in _BARE


BOUNDARIES: Final[Mapping[str, Callable[[bytes, int], bool]]] = {
    "alone": alone,
    "anywhere": anywhere,
    "base64": base64,
    "named": named,
    "number": number,
    "word": word,
}
"""By the names used in rules."""
INSIDE_WORDS: Final = frozenset({"anywhere", "named"})
"""Those that accept positions inside words; all others are stricter than `word`."""


def _after_escape(data: bytes, at: int) -> bool:
    return _ESCAPE.search(data, max(0, at - REACH), at) is not None
