"""Whether a value looks like what it would be: values without a mark of their own, known only by the name before them.

A machine-made value mixes digits and letters many times or has a length of hexadecimal digits; a word, a reference in
code, a path, a version does not. Entropy is no measure here: short values never have much of it, identifiers often do.

Rule of the file: facts about one text, no context.
"""

import re
from typing import Final

from proxy.policy.placeholders import is_reference

_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_CHANGE: Final = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*(?:\.[A-Za-z_$][A-Za-z0-9_$]*)+")
_DIGEST: Final = re.compile(r"(?:sha(?:1|256|384|512)|md5)[-:]", re.IGNORECASE)
_SPECIAL: Final = re.compile(r"[!@#$%^*?&+~=]")
_MAIL_HOSTS: Final = re.compile(
    r"(?:^|[@.])(?:example(?:\.(?:com|org|net|edu|co|io))?|test|invalid|localhost|local|domain\.(?:com|tld)|email\.com"
    r"|yourdomain\.com|mycompany\.com|yourcompany\.com|users\.noreply\.github\.com)$",
    re.IGNORECASE,
)
_FILES: Final = frozenset(
    "png jpg jpeg gif svg webp ico css scss js jsx ts tsx mjs cjs py rb go rs java kt json yaml yml toml md txt html "
    "xml sh lock map pdf zip gz tar so dll exe service target timer socket mount slice".split()
)
_NO_PEOPLE: Final = frozenset({"git", "hg", "svn"})


def machine_made(secret: str) -> bool:
    """Tell whether a value is as mixed as keys are: at least ten characters, letters and digits."""
    if len(secret) < 10 or not _has_both(secret) or is_reference(secret) or _is_named_thing(secret):
        return False
    if _HEX.fullmatch(secret):
        return len(secret) >= 16
    changes = len(_CHANGE.findall(secret))
    return changes >= 3 and changes * 9 >= len(secret)


def password(secret: str) -> bool:
    """Tell whether a value can be a password that a person chose: letters and digits and one thing more."""
    if not 8 <= len(secret) <= 128 or not _has_both(secret) or is_reference(secret) or _is_named_thing(secret):
        return False
    if machine_made(secret):
        return True
    upper = secret.lower() != secret and secret.upper() != secret
    return _SPECIAL.search(secret) is not None or (upper and len(_CHANGE.findall(secret)) >= 2)


def mixed_case(secret: str) -> bool:
    """Tell whether there are capital and small letters, and at least twelve characters differ."""
    return secret.lower() != secret and secret.upper() != secret and len(set(secret)) >= 12


def key_of_aws(secret: str) -> bool:
    """Tell whether 40 characters can be a secret access key: not hexadecimal, not a path, classes mixed."""
    if not mixed_case(secret) or not any(character.isdigit() for character in secret):
        return False
    return len(_CHANGE.findall(secret)) >= 6 and secret.count("/") <= 6


def email(secret: str) -> bool:
    """Tell whether a mail address can be a person's: no reserved domain, no file name, no login of a repository."""
    user, _, host = secret.rpartition("@")
    if user.lower() in _NO_PEOPLE or _MAIL_HOSTS.search(host) or ".." in secret:
        return False
    return host.rpartition(".")[2].lower() not in _FILES


def _has_both(secret: str) -> bool:
    return any(character.isdigit() for character in secret) and any(character.isalpha() for character in secret)


def _is_named_thing(secret: str) -> bool:
    """Tell whether it is an id, an expression in code, a digest: things that stand behind such names as well."""
    return bool(_UUID.fullmatch(secret) or _IDENTIFIER.fullmatch(secret) or _DIGEST.match(secret))
