"""Estimated usage if the provider reported none: an aborted, truncated or silent answer is never free.

English prose takes about four bytes per token with current vocabularies, code and other languages fewer; the result is
marked `estimated` wherever it is shown. Any text counts at least one token.
"""

from proxy.exchange import Usage

BYTES_PER_TOKEN = 4


def estimate_usage(request_text_bytes: int, output_text_bytes: int) -> Usage:
    """Return tokens for UTF-8 bytes of text, rounded up; zero only without text."""
    return Usage(input_tokens=_tokens(request_text_bytes), output_tokens=_tokens(output_text_bytes))


def _tokens(text_bytes: int) -> int:
    return -(-max(text_bytes, 0) // BYTES_PER_TOKEN)
