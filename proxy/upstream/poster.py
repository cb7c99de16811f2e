"""Posts small bodies to one address with the lean client, so that no other HTTP library has to be loaded.

Failure mode: without an answer, for whatever reason, the status is 0; nothing is raised.
"""

from collections.abc import Mapping
from typing import Final

from proxy.config.schema import Timeouts, Upstream, UpstreamClient
from proxy.errors import ProxyError
from proxy.exchange import UpstreamRequest
from proxy.upstream.lean import LeanClient

_MOST_ANSWER_BYTES: Final = 65_536
_IDLE_S: Final = 15.0
Answered = tuple[int, bytes, str | None]
"""Status, beginning of the body, and `Retry-After`."""


class Poster:
    """One address and a connection to it. Belongs to the event loop in which it is first used.

    Raises:
        OSError: `ca_file` cannot be read.
    """

    def __init__(self, url: str, *, ca_file: str | None, timeout_s: float) -> None:
        # Validated by its own section of the configuration; the one for providers has more rules.
        upstream = Upstream.model_construct(base_url=url, max_connections=1, idle_connection_s=_IDLE_S)
        times = Timeouts(
            connect_s=timeout_s, pool_s=timeout_s, first_byte_s=timeout_s, gap_s=timeout_s, total_s=timeout_s
        )
        self._url = url
        self._client = LeanClient(upstream, UpstreamClient(ca_file=ca_file), times)

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answered:
        """Send one body and return the answer."""
        lines = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
        request = UpstreamRequest(
            method="POST", url=self._url, headers=lines, body=body, content_length=len(body), on_sent=None
        )
        try:
            reply = await self._client.send(request)
        except (ProxyError, OSError, ValueError):
            return 0, b"", None
        try:
            answer = b""
            while len(answer) < _MOST_ANSWER_BYTES and (piece := await reply.read()):
                answer += piece
            retry_after = reply.fields.get(b"retry-after")
            return reply.status, answer, None if retry_after is None else retry_after.decode("latin-1")
        except ProxyError:
            return 0, b"", None
        finally:
            reply.close()

    async def close(self) -> None:
        """Drop the connection."""
        await self._client.close()
