"""Secrets that are none, made so that no scanner takes this repository for a leak."""

import random
import string
import zlib

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def github_token(seed: int = 1) -> str:
    """A token with a right checksum: high severity."""
    body = "".join(random.Random(seed).choices(_BASE62, k=30))
    value, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        check = _BASE62[digit] + check
    return "ghp" + "_" + body + check


def weak_token(seed: int = 1) -> str:
    """The same with a wrong checksum: medium severity."""
    token = github_token(seed)
    return token[:-1] + ("a" if token[-1] != "a" else "b")


HIGH = github_token()
MEDIUM = weak_token(2)
EMAIL = "ada.lovelace" + "@" + "engine-works.org"
SSN = "536-22-" + "8726"
