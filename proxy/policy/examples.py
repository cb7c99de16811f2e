"""The examples of a rule, texts that must match and texts that must not, and their verification.

Keys are abbreviated, so that no scanner reports the rules file as a leak: `{A36}` stands for 36 characters.

    A letters and digits   U the same with `_-`   B base64   H hexadecimal   C capitals and 2-7   L small letters
    K capital letters and digits   N digits   {crc} six check characters over the 30 random ones before them

Rule of the file: a rule always gets the same characters, so a failing example fails again.
"""

import random
import re
import string
import zlib
from collections.abc import Iterator
from typing import Final

from proxy.policy.detect import Matcher
from proxy.policy.rules import Rule, RuleSet

_CLASSES: Final = {
    "A": string.ascii_letters + string.digits,
    "B": string.ascii_letters + string.digits + "+/",
    "C": string.ascii_uppercase + "234567",
    "H": "0123456789abcdef",
    "K": string.ascii_uppercase + string.digits,
    "L": string.ascii_lowercase,
    "N": string.digits,
    "U": string.ascii_letters + string.digits + "_-",
}
_PART: Final = re.compile(r"\{([ABCHKLNU])(\d+)\}|\{(crc)\}")
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


def expand(example: str, seed: str) -> str:
    """Return `example` with `{A36}` etc. replaced by characters, which depend on the seed only."""
    chance = random.Random(seed)
    out = ""
    at = 0
    for part in _PART.finditer(example):
        out += example[at : part.start()]
        at = part.end()
        out += _checksum(out[-30:]) if part[3] else "".join(chance.choices(_CLASSES[part[1]], k=int(part[2])))
    return out + example[at:]


def failures(rules: RuleSet) -> Iterator[str]:
    """Yield problems: a rule without examples, or whose examples fail. Never quotes a text."""
    for rule in rules.rules:
        matcher = Matcher(rule)
        if not rule.match:
            yield f"{rule.id}: has no example that must match"
        for number, example in enumerate(rule.match, 1):
            if not _found(matcher, rule, example):
                yield f"{rule.id}: example {number} of `match` is not found"
        for number, example in enumerate(rule.no_match, 1):
            if _found(matcher, rule, example):
                yield f"{rule.id}: example {number} of `no_match` is found"


def _found(matcher: Matcher, rule: Rule, example: str) -> bool:
    return next(matcher.matches(expand(example, rule.id).encode()), None) is not None


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = _BASE62[digit] + digits
    return digits
