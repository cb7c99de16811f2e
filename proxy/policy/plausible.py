"""Whether a value looks like a secret, for values without a format, recognised only by the name before them.

A generated value mixes capitals, small letters and digits throughout, or is a hexadecimal number; a word, a reference
in code, a path or a version does not. Entropy is not used: short values never have much of it, identifiers often do.

Rule of the file: properties of one text, no context.
"""

import re
from typing import Final

from proxy.policy import url_encoded
from proxy.policy.placeholders import is_reference

_CLASSES: Final = bytes(
    ord("a") if 97 <= code <= 122 else ord("A") if 65 <= code <= 90 else ord("0") if 48 <= code <= 57 else ord(".")
    for code in range(256)
)
"""A byte -> one that stands for small letters, capitals, digits or all others."""
_CONSONANTS: Final = bytes(
    ord("b") if code in b"bcdfghjklmnpqrstvwxz" else ord("B") if code in b"BCDFGHJKLMNPQRSTVWXZ" else ord(".")
    for code in range(256)
)
"""A byte -> one that stands for small consonants, capital ones or all others."""
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_CHANGE: Final = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_ODD: Final = re.compile(r"(?<=[A-Z]{2})(?=[a-z])|(?i:[bcdfghjklmnpqrstvwxz]{4})(?<=[a-z]{3})")
"""Rare in identifiers: a run of capitals that ends inside a word, four consonants in a row."""
_DIGIT: Final = re.compile(r"[0-9]")
_LETTER: Final = re.compile(r"[A-Za-z]")
_WORD: Final = re.compile(r"[A-Z][a-z]{2,}|[a-z]{3,}")
_VOWEL: Final = re.compile(r"[aeiouyAEIOUY]")
_THING: Final = re.compile(
    r"(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|#(?:[0-9a-fA-F]{3,4}){1,2}|0[xX][0-9a-fA-F]{1,16}[uUlLn]{0,3})\Z"
    r"|(?i:(?:sha(?:1|256|384|512)|md5)[-:])"
    r"|v?[0-9]+[:.][0-9]+[.:]|[12][0-9]{3}-[01][0-9]-[0-3][0-9]"
    r"|[A-Za-z_$][A-Za-z0-9_$]*:(?:![01]|null|true|false|void|function|this)"
)
"""A UUID, a colour, or a number of at most 64 bits; what begins as a digest, a version or a date, or as the next member
of an object, which follows a string in minified code."""
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(?:(?:\.|::|->)[A-Za-z_$][A-Za-z0-9_$]*)+(?:\(\))?")
_PATH: Final = re.compile(r"(?:\.{1,2}|~)?/")
_NEXT_PARAMETER: Final = re.compile(r"&(?:amp;)?[A-Za-z_][A-Za-z0-9_.-]*=")
_PAIR: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*=.")
_SPECIAL: Final = re.compile(r"[!@#$%^*?&+~=]")
_NO_MAIL_HOSTS: Final = tuple(
    f".{host}"
    for host in (
        "example example.com example.org example.net example.edu example.co example.io test invalid localhost local "
        "domain.com domain.tld email.com yourdomain.com mycompany.com yourcompany.com users.noreply.github.com"
    ).split()
)
"""Hosts in samples, and all below them."""
_FILES: Final = frozenset(
    "png jpg jpeg gif svg webp ico css scss js jsx ts tsx mjs cjs py rb go rs java kt json yaml yml toml md txt html "
    "xml sh lock map pdf zip gz tar so dll exe service target timer socket mount slice".split()
)
_REST_OF_ESCAPE: Final = re.compile(r"\A[0-7][0-9a-f](?:\+|\Z)")
"""With what an address begins where the escape before it lost its `%`."""
_NO_PEOPLE: Final = frozenset(
    f"{escape}{user}" for escape in ("", "n", "r", "t", "20") for user in ("git", "hg", "svn")
)
"""Also with what is left of an escape before them: `\\n`, `%20`."""


def machine_made(secret: str) -> bool:
    """Tell whether a value is as mixed as a key: ten characters or more, letters and digits (or padded base64)."""
    secret = url_encoded.value(secret)
    if len(secret) < 10 or is_reference(secret) or _is_named_thing(secret):
        return False
    if _HEX.fullmatch(secret):
        return len(secret) >= 16 and _has_both(secret)
    changes = _changes(secret)
    mixed = changes + _oddities(secret)
    if secret.isalpha():
        return _is_scrambled_letters(secret, mixed)
    if not _has_both(secret):
        return len(secret) >= 20 and secret.endswith("=") and mixed * 4 >= len(secret)
    if not secret.islower() and 20 * _letters_of_words(secret) > 13 * len(secret):
        return False
    return (changes >= 3 or mixed >= 4 or mixed * 4 >= len(secret)) and mixed * 9 >= len(secret)


def password(secret: str) -> bool:
    """Tell whether a value could be a password chosen by a person: letters, digits and one other character."""
    if machine_made(secret):
        return True
    secret = _NEXT_PARAMETER.split(url_encoded.value(secret), maxsplit=1)[0]
    if not 8 <= len(secret) <= 128 or not _has_both(secret) or is_reference(secret) or _is_named_thing(secret):
        return False
    if _PAIR.match(secret):
        return False
    upper = secret.lower() != secret and secret.upper() != secret
    return _SPECIAL.search(secret) is not None or (upper and _changes(secret) >= 2)


def mixed_case(secret: str) -> bool:
    """Tell whether there are capital and small letters, and at least twelve different characters."""
    return secret.lower() != secret and secret.upper() != secret and len(set(secret)) >= 12


def scrambled(secret: str) -> bool:
    """Tell whether the text after a vendor's prefix is not a word: mixed like a key, or in mixed case."""
    return mixed_case(secret) or machine_made(secret)


def key_of_aws(secret: str) -> bool:
    """Tell whether 40 characters could be an AWS secret access key: not hexadecimal, not a path, classes mixed."""
    if not mixed_case(secret) or not any(character.isdigit() for character in secret):
        return False
    return _changes(secret) >= 6 and secret.count("/") <= 6


def key_material(secret: str) -> bool:
    """Tell whether the text after a key's header line is a key: twenty different characters. Samples repeat a few.

    What follows the last line of a sample is not part of it.
    """
    body = secret.partition("KEY")[2]
    if (end := body.find("-----END")) >= 0:
        body = body[:end]
    return len(set(body)) >= 20


def email(secret: str) -> bool:
    """Tell whether a mail address could belong to a person: no reserved domain, file name or repository login."""
    user, _, host = secret.replace("%40", "@").lower().rpartition("@")
    user = _REST_OF_ESCAPE.sub("", url_encoded.last_part(user), count=1)
    if not user or user in _NO_PEOPLE or ".." in secret or f".{host}".endswith(_NO_MAIL_HOSTS):
        return False
    return host.rpartition(".")[2] not in _FILES


def _is_scrambled_letters(letters: str, mixed: int) -> bool:
    """Tell whether letters alone are no identifier: 95 in 100 random ones are accepted, 3 in 1,000 identifiers."""
    if len(letters) < 16 or mixed * 9 < 2 * len(letters):
        return False
    return 20 * _letters_of_words(letters) <= 11 * len(letters)


def _is_word(letters: str) -> bool:
    """Tell whether letters are pronounceable: a vowel, no four consonants in a row."""
    return _VOWEL.search(letters) is not None and _ODD.search(letters) is None


def _changes(secret: str) -> int:
    """Count changes between small letters, capitals and digits, except from a capital to a small letter."""
    if not secret.isascii():
        return len(_CHANGE.findall(secret))
    count = secret.encode().translate(_CLASSES).count
    return count(b"aA") + count(b"a0") + count(b"A0") + count(b"0a") + count(b"0A")


def _oddities(secret: str) -> int:
    """Count what is rare in identifiers. Where there are no four consonants, capitals before a small letter are all."""
    if secret.isascii():
        data = secret.encode()
        find = data.translate(_CONSONANTS).find
        if find(b"bbbb") < 0 and find(b"Bbbb") < 0:
            return data.translate(_CLASSES).count(b"AAa")
    return len(_ODD.findall(secret))


def _letters_of_words(secret: str) -> int:
    """Count the letters of pronounceable words."""
    if secret.isascii() and secret.encode().translate(_CLASSES).lower().find(b"aaa") < 0:
        return 0
    return sum(map(len, filter(_is_word, _WORD.findall(secret))))


def _has_both(secret: str) -> bool:
    if secret.isascii():
        return _DIGIT.search(secret) is not None and _LETTER.search(secret) is not None
    return any(character.isdigit() for character in secret) and any(character.isalpha() for character in secret)


def _is_named_thing(secret: str) -> bool:
    """Tell whether it is an id, an expression in code, a path or a digest, which also occur after such names."""
    if _THING.match(secret):
        return True
    if _PATH.match(secret):
        changes = _changes(secret)
        return changes < 5 or (secret.count("/") >= 3 and (not mixed_case(secret) or changes * 4 < len(secret)))
    if "." not in secret and ":" not in secret and ">" not in secret:  # as nearly always, and in a tenth of the time
        return False
    return _IDENTIFIER.fullmatch(secret) is not None and _changes(secret) * 5 < len(secret)
