"""Values in place of a secret: documentation samples, templates, references.

Only the value itself is examined, never the text around it: "for example sk-..." may contain a real key.

Rule of the file: a random value almost never passes a test by chance; a real key must not count as a sample because of
four letters in the middle of a long text, so words are searched for in the first 64 characters only.
"""

import re
from typing import Final

from proxy.policy import url_encoded
from proxy.policy.automata import Automaton

PUBLISHED: Final = frozenset(
    {
        "AKIAIOSFODNN7EXAMPLE",
        "AKIAI44QH8DHBEXAMPLE",
        "ASIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY",
        "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
        "sk_test_BQokikJOvBiI2HlWgH4olfQ2",
        "sk_test_26PHem9AhJZvU623DfE1x4sd",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
        "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqygy",
        "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
        "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs",
        "2YotnFZFEjr1zCsicMWpAA",
        "tGzv3JOkF0XG5Qx2TlKWIA",
        "mF_9.B5f-4.1JqM",
        "7Fjfp0ZBr1KtDRbnfVdmIw",
        "czZCaGRSa3F0MzpnWDFmQmF0M2JW",
        "b7d03a6947b217efb6f3ec3bd3504582",
        "c2547eb745079dac9320b638f5e225cf483cc5cfdda41",
        "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5",
        "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",
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==",
    }
)
"""Keys published in vendors' manuals, in RFC 6749 and 6750, and in NIP-19."""
_PUBLISHED_PARTS: Final = (
    ".eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9l",
    ".eyJpc3MiOiJqb2UiLA0K",
    ".eyJpc3MiOiJzdXBhYmFzZS1kZW1v",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
)
_SHORTEST: Final = min(map(len, (*PUBLISHED, *_PUBLISHED_PARTS)))
_HEAD: Final = 64
_SAMPLE_WORDS: Final = (
    r"example|your[_-]|[_-]your|your(?:api|key|token|secret|pass)|xxxx|placeholder|change_?-?me|replace|dummy|redacted"
    r"|insert|sample|fake[_-]|[_-]fake|not[_-]?a?[_-]?real|goes[_-]?here|key[_-]here|token[_-]here|secret[_-]here"
)
_WORDS: Final = re.compile(_SAMPLE_WORDS, re.IGNORECASE)
_ASCII_WORDS: Final = Automaton(f"(?i){_SAMPLE_WORDS}")
"""The same, 20 times as fast. Outside ASCII the two disagree about letter case."""
_TEMPLATE: Final = re.compile(r"\$\{|\{\{|\}\}|<[^<>]*>|&lt;[^&]*&gt;|(?:\*|%2[Aa]){3}|\.\.\.|…|%\(\w+\)s|\$\(")
_REFERENCE: Final = re.compile(
    r"(?:\$|%24)(?:[A-Za-z_{(]|%7[Bb])|%[A-Za-z_]+%$|&lt;|\{\{?|<|@@|op://|arn(?::|%3[Aa])|vault:|ref\+|secretref:|projects/|https?(?::|%3[Aa])(?:/|%2[Ff])|file:|env[.:]"
    r"|process\.env|os\.(?:environ|getenv)|System\.getenv|ENV\["
)
_SEQUENCES: Final = "abcdefghijklmnopqrstuvwxyz0123456789 1234567890abcdef 9876543210 zyxwvutsrqponmlkjihgfedcba"
_SEQUENCE: Final = 9
_SAMPLE: Final = 3
_STEP: Final = _SEQUENCE - _SAMPLE + 1
"""Every sequence holds a sample that begins at a multiple of this."""


def is_published(secret: str) -> bool:
    """Tell whether `secret` is one of the exact examples from manuals."""
    return len(secret) >= _SHORTEST and (secret in PUBLISHED or any(part in secret for part in _PUBLISHED_PARTS))


def is_placeholder(secret: str) -> bool:
    """Tell whether `secret` is a sample: a typical word, a template, few different characters, a sequence."""
    secret = url_encoded.value(secret)
    tail = secret[-16:]
    if len(secret) >= 12 and (len(set(tail)) < 5 or (len(tail) == 16 and tail[:8] == tail[8:])):
        return True
    head = secret[:_HEAD]
    if _has_word(head) or _TEMPLATE.search(head) or secret.endswith("EXAMPLE"):
        return True
    lower = head.lower()
    if not any([lower[at : at + _SAMPLE] in _SEQUENCES for at in range(0, len(lower) - _SAMPLE + 1, _STEP)]):
        return False
    return any(lower[at : at + _SEQUENCE] in _SEQUENCES for at in range(len(lower) - _SEQUENCE + 1))


def _has_word(head: str) -> bool:
    if head.isascii():
        return _ASCII_WORDS.search(head.encode(), 0) is not None
    return _WORDS.search(head) is not None


def is_reference(secret: str) -> bool:
    """Tell whether `secret` refers to where the value is stored: a variable, a path, a vault."""
    return _REFERENCE.match(secret) is not None
