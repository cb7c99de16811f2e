"""Masks our own credentials in a provider's answers: a provider, or a gateway before it, may quote what it was sent.

Everything that a client can see of an answer passes here: reason phrase, body, websocket messages and close reasons
(header fields with a credential are dropped by `headers`). A credential is replaced with as many asterisks, even if it
is split between pieces of a body: then only the part that may be its beginning waits for the next piece.

Compressed bodies are searched in `encoded`. Failure mode: a credential escaped in JSON is not found.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from proxy.credentials import cover, covered_text
from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Message, Sink, UpstreamReply, WebsocketPeer
from proxy.upstream.encoded import safe_length, searched


class Handshake(UpstreamReply, Protocol):
    """The answer to a websocket handshake: `websocket.WebsocketReply`."""

    @property
    def subprotocol(self) -> str | None:
        """The provider's choice of subprotocol."""

    @property
    def socket(self) -> WebsocketPeer | None:
        """The open websocket; `None`: refused, read it like any reply."""


class CoveredReply:
    """Implements `exchange.UpstreamReply` around another."""

    def __init__(self, reply: UpstreamReply, secrets: tuple[bytes, ...]) -> None:
        self._reply = searched(reply, secrets)
        self._secrets = secrets
        self._letters = _letters(secrets)
        self._held = b""
        self._error: UpstreamFailed | None = None
        self._sink: Sink | None = None
        self.status = reply.status
        self.reason = covered_text(reply.reason, secrets)
        self.headers: Headers = reply.headers
        self.fields = reply.fields

    async def read(self, sink: Sink | None = None) -> bytes:
        """Return what has arrived; an error is raised only after bytes held back before it were returned."""
        if self._error is not None:
            raise self._error
        offer = None if sink is None else self._offer
        while True:
            self._sink = sink
            try:
                piece = await self._reply.read(offer)
            except UpstreamFailed as error:
                self._error = error
                if not self._held:
                    raise
                piece = b""
            finally:
                self._sink = None  # as there
            if not piece:
                held, self._held = self._held, b""
                return held
            # Nearly every piece ends with a line end or a brace, which no secret contains.
            if not self._held and piece[-1] not in self._letters:
                return cover(piece, self._secrets)
            if data := self._released(piece):
                return data

    def _offer(self, piece: bytes) -> bool:
        """Offer a piece in which nothing has to be masked or held."""
        if self._held or piece[-1] in self._letters or self._sink is None:
            return False
        for secret in self._secrets:  # inlined `cover`: every event passes here
            if piece.partition(secret)[1]:  # half the instructions of `find`
                return False
        return self._sink(piece)

    def _released(self, piece: bytes) -> bytes:
        """Return what may be sent of `piece`, and hold the rest."""
        data = cover(self._held + piece, self._secrets)
        keep = len(data) if self._reply.complete else safe_length(data, self._secrets)
        self._held = data[keep:]
        return data[:keep]

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()


class CoveredHandshake(CoveredReply):
    """The answer to a websocket handshake."""

    def __init__(self, reply: Handshake, secrets: tuple[bytes, ...]) -> None:
        super().__init__(reply, secrets)
        self.subprotocol = reply.subprotocol
        self.socket = None if reply.socket is None else CoveredSocket(reply.socket, secrets)


class CoveredSocket:
    """Implements `exchange.WebsocketPeer` around another; what is sent to the provider is unchanged."""

    def __init__(self, peer: WebsocketPeer, secrets: tuple[bytes, ...]) -> None:
        self._peer = peer
        self._secrets = secrets

    async def receive(self) -> Message:
        """Return the next message of the provider."""
        message = await self._peer.receive()
        data = message.data
        if isinstance(data, str):
            covered: str | bytes = covered_text(data, self._secrets)
        else:
            covered = cover(data, self._secrets)
        return message if covered is data else replace(message, data=covered)

    async def send(self, message: Message) -> None:
        """Send a message to the provider."""
        await self._peer.send(message)


@lru_cache(8)
def _letters(secrets: tuple[bytes, ...]) -> frozenset[int]:
    """Return the bytes that occur in a secret. Cached, as every reply has the same few secrets."""
    return frozenset(b"".join(secrets))
