"""Whether an answer can be scanned: it is text by its media type or its first bytes, and its encoding can be removed.

Whether an unreadable answer passes is up to the policy (`unscannable`); it is recorded in any case.
Source: RFC 9110 sections 8.3 and 8.4; RFC 6838 section 4.2.8 (structured syntax suffixes).
"""

from typing import Final

from proxy.nouns.scanners import OutputScanner
from proxy.openai.decoding import supported
from proxy.relay.answer import Answer, not_scannable

_TEXT_TYPES: Final = frozenset(
    {
        b"",
        b"application/javascript",
        b"application/json-seq",
        b"application/jsonl",
        b"application/jsonlines",
        b"application/x-jsonlines",
        b"application/x-ndjson",
        b"application/x-subrip",
        b"application/xml",
        b"application/yaml",
    }
)
"""In addition to `text/*` and JSON. An answer without a type is scanned as text."""


def scanner_of(answer: Answer) -> OutputScanner | None:
    """Return the scanner of the answer; `None` if it is not or cannot be scanned, which is recorded.

    Raises:
        PolicyViolation: it cannot be scanned, and the policy requires that.
    """
    scanner = answer.scanner
    if scanner is None:
        return None
    reason = _obstacle(answer)
    if reason is None:
        return None if answer.dialect == "embeddings" and answer.is_json and answer.status < 400 else scanner
    scanner.missed("body", reason)
    answer.scanner = None
    if scanner.unscannable == "deny":
        answer.attempt.meter.withheld = True
        raise not_scannable()
    return None


def may_be_text(answer: Answer) -> bool:
    """Tell whether the label of an answer says neither that it is text nor that it is media."""
    return not _is_labelled_text(answer) and not _is_labelled_media(answer)


def fits(answer: Answer, limit: int) -> bool:
    """Tell whether an answer announces a length that is small enough to be held whole."""
    return answer.length is not None and answer.length <= limit


def _obstacle(answer: Answer) -> str | None:
    if answer.content_encoding and not supported(answer.content_encoding):
        return "compressed"
    if _is_labelled_text(answer) or answer.begins_as_text:
        return None
    return "media" if _is_labelled_media(answer) else "binary"


def _is_labelled_text(answer: Answer) -> bool:
    if answer.is_json or answer.is_events:
        return True
    kind = answer.content_type
    return kind.startswith(b"text/") or kind.endswith(b"+xml") or kind in _TEXT_TYPES


def _is_labelled_media(answer: Answer) -> bool:
    return answer.content_type.startswith((b"audio/", b"image/", b"video/"))
