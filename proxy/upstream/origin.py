"""The scheme, host and port of an upstream, parsed once from its base URL, and its TLS settings.

Rule of the file: a client serves one origin. The target of a request is its URL with exactly the origin's text removed,
so no path can lead to another host, and no byte of path or query is rebuilt.

Source: RFC 9112 section 3.2.1 (origin-form), RFC 7301 (ALPN).
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from proxy.config.files import check_regular

_TARGET: Final = re.compile(r"[\x21\x22\x24-\x7e]+")
"""Visible ASCII without `#`: no space, no control character, nothing above 0x7e."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream. `prefix`: the common beginning of all its URLs."""

    prefix: str
    host: str
    port: int
    secure: bool

    @classmethod
    def of(cls, base_url: str) -> "Origin":
        """Parse an absolute base URL (validated by `proxy.config.schema`)."""
        parts = urlsplit(base_url)
        secure = parts.scheme == "https"
        return cls(
            prefix=f"{parts.scheme}://{parts.netloc}",
            host=parts.hostname or "",
            port=parts.port or (443 if secure else 80),
            secure=secure,
        )

    @property
    def authority(self) -> str:
        """The value of the Host field."""
        return self.prefix.partition("//")[2]

    def target(self, url: str) -> str:
        """Return path and query of `url`, unchanged.

        Raises:
            ValueError: the URL does not belong to this origin, or has a character that is invalid in a request line.
        """
        target = url.removeprefix(self.prefix)
        if len(target) == len(url) or target[:1] != "/" or not _TARGET.fullmatch(target):
            raise ValueError("not a clean URL of this upstream")
        return target

    def tls(self, ca_file: str | None) -> ssl.SSLContext | None:
        """Return a context for connections to it, `None` if they have no TLS. Raises as `tls_context`."""
        return tls_context(ca_file) if self.secure else None


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a verifying TLS context for HTTP/1.1. `ca_file` replaces the system's trust store, which takes 30 ms.

    Raises:
        OSError: the file cannot be read or contains no certificate.
    """
    if ca_file is not None:
        check_regular(Path(ca_file))
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
