"""Finds and masks credentials in what is stored or shown.

A credential is recognised by its value (the provider's key, the calling client's key) or by its shape (`sk-..`,
`ghp_..`): a key that a client put in place of a name, such as a model, may be in no header to compare with, and a trace
keeps names of tools, files and users. Records are searched by shape and for our own keys only: a client could choose a
"key" such that masking it would corrupt the record.

Rules of the file: a mask has the length of what it masks, so that announced lengths and the surrounding JSON stay
valid; a value too short to be a secret is a placeholder (`none`, `ollama`) that any text may contain. Pure.

Failure mode: a key of an unknown shape in the place of a name is not found.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

MIN_SECRET_BYTES: Final = 12
"""A shorter key is a placeholder."""
_SHAPE: Final = re.compile(
    rb"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
    rb"(?:(?:sk-|sg-|gsk_|xai-|AIza|gh[ops]_|github_pat_|glpat-|xox[bp]-|hf_)[A-Za-z0-9_-]{16,}"
    rb"|AKIA[A-Z0-9]{16}(?![A-Za-z0-9]))"
)
"""A word begins behind an escape, too: of JSON, as which records are searched, or of a URL."""
_MARKS: Final = tuple(
    re.compile(mark).search
    for mark in (
        rb"-(?<=[asx][abgikpt]-)(?:(?<=sk-)|(?<=sg-)|(?<=xai-)|(?<=glpat-)|(?<=xox[bp]-))",
        rb"_(?<=[ahs][fkopst]_)(?:(?<=gsk_)|(?<=gh[ops]_)|(?<=github_pat_)|(?<=hf_))",
        rb"A(?:Iza|KIA)",
    )
)
"""One of them is in every shape. Each begins with a byte of its own, for which `re` looks before it tries anything,
and then asks for what the two bytes before it may be, as most are others."""
_CLIENT_FIELDS: Final = (b"authorization", b"api-key", b"x-api-key")


def secrets_in(values: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the secrets in values of header fields (`Bearer <secret>`, or the secret alone), longest first."""
    found: list[bytes] = []
    for value in values:
        words = value.split()
        if words and len(words[-1]) >= MIN_SECRET_BYTES and words[-1] not in found:
            found.append(words[-1])
    if len(found) > 1:
        found.sort(key=len, reverse=True)
    return tuple(found)


def client_secrets(fields: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """Return the secrets in a client's credential headers. `fields`: by lower-case name."""
    return secrets_in([fields[name] for name in _CLIENT_FIELDS if name in fields])


def cover(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """Return `data` with every occurrence of a secret replaced by asterisks; the same object if there is none."""
    for secret in secrets:
        if data.find(secret) >= 0:
            data = data.replace(secret, b"*" * len(secret))
    return data


def covered_text(text: str, secrets: Iterable[bytes]) -> str:
    """Do the same to text. Secrets are ASCII, as header values are."""
    for secret in secrets:
        word = secret.decode("latin-1")
        if word in text:
            text = text.replace(word, "*" * len(word))
    return text


def cover_shapes(data: bytes) -> bytes:
    """Return `data` with everything that has the shape of a key replaced by asterisks."""
    # Most records have none. The three take a third of the time of a `find` for every shape (timeit).
    for search in _MARKS:
        if search(data) is not None:
            break
    else:
        return data
    return _SHAPE.sub(lambda found: b"*" * len(found[0]), data)


def resembles_credential(name: str) -> bool:
    """Tell whether a name holds something that has the shape of a key."""
    return _SHAPE.search(name.encode("utf-8", "replace")) is not None
