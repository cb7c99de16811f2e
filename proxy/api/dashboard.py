"""`/ui`: the files of the dashboard, from memory.

All of `proxy/ui` is read at start and at a reload. A request is looked up by its exact path, so there is no path
traversal and no cache that grows. The files contain no data, so they need no sign-in; the page calls the API with the
user's key.

The content security policy allows the page's own scripts and styles and requests to this server, nothing else: no
inline code, no other host, no framing, no navigating form, no text that becomes markup (trusted types). Browsers
revalidate at every visit and get 304 while a file is unchanged, so a new version is visible at once.

Source: W3C CSP 3, W3C Trusted Types; RFC 9110 sections 13.1.2 (If-None-Match), 15.4.9 (308).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

from proxy.errors import InvalidRequest
from proxy.ui import ROOT

PREFIX: Final = "/ui"
_MAX_FILE_BYTES: Final = 262_144
_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    """One file, ready to be sent."""

    body: bytes
    content_type: str
    etag: str


class Dashboard:
    """Answers requests below `/ui`."""

    def __init__(self, root: Path = ROOT) -> None:
        files = {
            f"{PREFIX}/{path.name}": _read(path) for path in sorted(root.iterdir()) if path.suffix in _CONTENT_TYPES
        }
        files[f"{PREFIX}/"] = files[f"{PREFIX}/index.html"]
        self.files: Mapping[str, File] = MappingProxyType(files)

    def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one request.

        Raises:
            InvalidRequest: 404, there is no such file.
        """
        path = request.raw_path.partition("?")[0]
        file = self.files.get(path)
        if file is None and path != PREFIX:
            raise InvalidRequest("The dashboard has no such file; it starts at /ui/.", status=404, code="unknown_path")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={**_HEADERS, "Allow": "GET, HEAD"})
        if file is None:  # the page links its files relatively, so it needs the slash
            return web.Response(status=308, headers={**_HEADERS, "Location": "ui/"})
        known = request.headers.get("If-None-Match", "")
        if known == "*" or file.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return web.Response(status=304, headers={**_HEADERS, "ETag": file.etag})
        return web.Response(body=file.body, headers={**_HEADERS, "ETag": file.etag, "Content-Type": file.content_type})


def _read(path: Path) -> File:
    body = path.read_bytes()
    if len(body) > _MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is longer than {_MAX_FILE_BYTES} bytes")
    return File(body, _CONTENT_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
