"""One collector of spans over HTTP: posts bodies, and says what came back without judging it.

Failure mode: whatever goes wrong on the way is the status 0.
"""

import ssl
from importlib.metadata import version
from typing import Final

import aiohttp

from proxy.config.otel import Otel

_MOST_ANSWER_BYTES: Final = 65_536
_AGENT: Final = f"sidegate/{version('sidegate')}"


class Collector:
    """A session with the collector of the settings that were used last."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._of_session: Otel | None = None

    async def post(self, settings: Otel, body: bytes) -> tuple[int, bytes, str | None]:
        """Return status, body and `Retry-After` of the answer; 0: none came."""
        try:
            session = await self._session_for(settings)
            headers = {"Content-Type": "application/x-protobuf"}
            if settings.compression == "gzip":
                headers["Content-Encoding"] = "gzip"
            async with session.post(settings.url or "", data=body, headers=headers, allow_redirects=False) as response:
                answer = await response.content.read(_MOST_ANSWER_BYTES)
                return response.status, answer, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, b"", None

    async def close(self) -> None:
        """Drop the connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _session_for(self, settings: Otel) -> aiohttp.ClientSession:
        if self._session is None or self._of_session is not settings:
            await self.close()
            is_secure = (settings.url or "").startswith("https:")
            context = ssl.create_default_context(cafile=settings.ca_file) if is_secure else True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=1, ssl=context),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": _AGENT, **settings.headers},
                timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            )
            self._of_session = settings
        return self._session
