"""One configured provider: sends an exchange's request to it, with its credential instead of the client's.

The URL is the configured base plus what followed `/v1` in the client's raw target (`address`). The body is the client's
own, except for the model if this provider has another name for it.
"""

from collections.abc import AsyncIterator
from functools import lru_cache

from proxy.config.schema import UpstreamEntry
from proxy.credentials import secrets_in
from proxy.event_loop.off_loop import LARGE_BODY_BYTES, decoded_off_loop
from proxy.exchange import Attempt, Candidate, Headers, Inbound, UpstreamReply, UpstreamRequest
from proxy.openai.model_edit import with_model, without_usage_option
from proxy.upstream.address import azure_url, openai_url
from proxy.upstream.client import Client
from proxy.upstream.covering import CoveredHandshake, CoveredReply
from proxy.upstream.headers import names_credential, request_headers, response_headers
from proxy.upstream.stats import ClientStats
from proxy.upstream.websockets import Websockets

_REMEMBERED_HEADS = 64


class Provider:
    """Sends attempts to one upstream."""

    def __init__(self, settings: UpstreamEntry, client: Client, websockets: Websockets) -> None:
        keys = [key.api_key.get_secret_value().encode() if key.api_key is not None else None for key in settings.keys]
        extra = tuple((name.encode(), value.encode()) for name, value in settings.headers.items())
        self.name = settings.name
        self.force_stream_usage = settings.force_stream_usage
        self._base_url = settings.base_url
        self._api_version = settings.api_version if settings.kind == "azure" else None
        self._authorizations = tuple(None if key is None or self._api_version else b"Bearer " + key for key in keys)
        self._extras = tuple(
            (*extra, (b"api-key", key)) if key is not None and self._api_version else extra for key in keys
        )
        given = [value for name, value in extra if names_credential(name)]
        self.secrets = secrets_in([*given, *(key for key in keys if key is not None)])
        """Sent to the provider and to be hidden from everybody else: the keys, and configured fields with one."""
        self._client = client
        self._websockets = websockets
        # A caller repeats its heads: without the cache they cost 25 us each (`make bench`: 3 %).
        self._headers = lru_cache(_REMEMBERED_HEADS)(self._make_headers)

    def url(self, inbound: Inbound, candidate: Candidate | None = None) -> str:
        """Return the absolute URL for the client's target."""
        if self._api_version is None:
            return openai_url(self._base_url, inbound.target)
        deployment = None if candidate is None else candidate.sent_as or candidate.model
        return azure_url(self._base_url, inbound.target, self._api_version, deployment)

    def request_headers(self, inbound: Inbound, credential: int = 0) -> Headers:
        """Return the client's headers that the provider may see, with the provider's credential."""
        return self._headers(tuple(inbound.headers), credential)

    def _make_headers(self, headers: Headers, credential: int) -> Headers:
        authorization, extra = self._authorizations[credential], self._extras[credential]
        return tuple(request_headers(headers, authorization=authorization, extra=extra))

    def response_headers(self, reply: UpstreamReply) -> Headers:
        """Return the provider's headers that the client may see."""
        return response_headers(reply.headers, secrets=self.secrets)

    async def send(
        self, attempt: Attempt, inbound: Inbound, body: bytes | AsyncIterator[bytes] | None
    ) -> UpstreamReply:
        """Send and return the head of the answer. Raises as `Client.send`."""
        candidate = attempt.candidate
        drops_option = candidate.forced_usage and not self.force_stream_usage
        if (drops_option or candidate.sent_as is not None) and isinstance(body, bytes):
            body = await self._fitted(candidate, body, drops_option)
        reply = await self._client.send(self._request(attempt, inbound, body))
        return CoveredReply(reply, self.secrets) if self.secrets else reply

    async def connect(self, attempt: Attempt, inbound: Inbound) -> CoveredHandshake:
        """Open a websocket; a refused handshake is a reply without a socket. Raises as `WebsocketClient.connect`."""
        reply = await self._websockets.connect(self._request(attempt, inbound, None))
        return CoveredHandshake(reply, self.secrets)

    async def _fitted(self, candidate: Candidate, body: bytes, drops_option: bool) -> bytes:
        """Return the body with this provider's name of the model, and without members it does not support."""

        def fitted() -> bytes:
            left = without_usage_option(body) if drops_option else body
            name = candidate.sent_as
            return left if name is None else with_model(left, name, has_model=candidate.replaces_model)

        return fitted() if len(body) <= LARGE_BODY_BYTES else await decoded_off_loop(fitted)

    def _request(
        self, attempt: Attempt, inbound: Inbound, body: bytes | AsyncIterator[bytes] | None
    ) -> UpstreamRequest:
        return UpstreamRequest(
            inbound.method,
            self.url(inbound, attempt.candidate),
            self.request_headers(inbound, attempt.credential),
            body,
            # Only a streamed body needs the length that the client announced.
            inbound.content_length,
            attempt.note_sent,
        )

    def stats(self) -> ClientStats:
        """Count connections and waiting requests."""
        return self._client.stats()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
        await self._websockets.close()
