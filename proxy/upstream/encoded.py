"""Keeps our own credentials out of compressed answers: a decoded copy is searched, the bytes pass as they came.

A credential cannot be masked inside compressed bytes, so an answer that has one ends there, as if the provider had
broken it off; nothing of the credential has passed. Clients ask for gzip by themselves, and error messages quote keys.

A small piece may expand a thousandfold: it is decoded in steps, between which others have their turn.

Failure mode: an encoding that we did not offer, an invalid one, or what follows 64 MiB of decoded text is not searched.
What ends in the beginning of a credential waits for its next byte up to a megabyte, then passes.
"""

from collections.abc import Iterator
from typing import Final

from proxy.apart import Turns
from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Sink, UpstreamReply
from proxy.openai.decoding import Decoder, supported

_PIECE_BYTES: Final = 262_144
_MOST_DECODED_BYTES: Final = 67_108_864
"""A few kilobytes can expand to gigabytes."""
_STEP_BYTES: Final = 16_384
"""Of compressed bytes: behind each member of gzip what follows is copied, and an empty one has 20 bytes."""
_MOST_HELD_BYTES: Final = 1_048_576


def searched(reply: UpstreamReply, secrets: tuple[bytes, ...]) -> UpstreamReply:
    """Return the reply, wrapped if it is compressed in a way that can be read."""
    for name, value in reply.headers:
        if len(name) == 16 and name.lower() == b"content-encoding":  # the length first: every reply passes here
            encoding = value.strip().lower()
            return EncodedReply(reply, encoding, secrets) if supported(encoding) else reply
    return reply


def safe_length(data: bytes, secrets: tuple[bytes, ...]) -> int:
    """Return how much of `data` cannot be the beginning of a secret that the next piece completes."""
    held = 0
    for secret in secrets:
        if data[-1] not in secret:
            continue
        longest = min(len(secret) - 1, len(data))
        held = max(held, next((size for size in range(longest, 0, -1) if data.endswith(secret[:size])), 0))
    return len(data) - held


class EncodedReply:
    """Implements `exchange.UpstreamReply` around a compressed one. `encoding`: a supported one."""

    def __init__(self, reply: UpstreamReply, encoding: bytes, secrets: tuple[bytes, ...]) -> None:
        self._reply = reply
        self._secrets = secrets
        self._decoder: Decoder | None = Decoder(encoding, _PIECE_BYTES)
        self._overlap = max(map(len, secrets), default=1) - 1
        self._held = b""
        self._tail = b""
        self._decoded_bytes = 0
        self.status = reply.status
        self.reason = reply.reason
        self.headers: Headers = reply.headers

    async def read(self, _sink: Sink | None = None) -> bytes:
        """Return what has arrived and ends in no beginning of a credential. Raises UpstreamFailed at a credential."""
        while piece := await self._reply.read():
            self._held += piece
            if await self._is_harmless(piece) or self._reply.complete or len(self._held) > _MOST_HELD_BYTES:
                break
        held, self._held = self._held, b""
        return held

    async def _is_harmless(self, piece: bytes) -> bool:
        """Search the next piece; False: its end may be the beginning of a credential."""
        turns = Turns()
        turns.begin()
        for plain in self._decoded(piece):
            text = self._tail + plain
            self._tail = text[-self._overlap :] if self._overlap else b""
            if any(secret in text for secret in self._secrets):
                raise UpstreamFailed(
                    "The provider's answer holds a credential of ours in compressed form; it was stopped.",
                    code="upstream_credential_echoed",
                )
            if turns.is_over:
                await turns.give()
        return self._decoder is None or not self._tail or safe_length(self._tail, self._secrets) == len(self._tail)

    def _decoded(self, piece: bytes) -> Iterator[bytes]:
        """Yield the text of a piece, in steps that may be empty, up to what is invalid or too much."""
        for at in range(0, len(piece), _STEP_BYTES):
            if self._decoder is None:
                return
            try:
                for plain in self._decoder.feed(piece[at : at + _STEP_BYTES]):
                    self._decoded_bytes += len(plain)
                    yield plain
                    if self._decoded_bytes > _MOST_DECODED_BYTES:
                        self._decoder = None
                        return
            except UpstreamFailed:
                self._decoder = None
            yield b""

    @property
    def complete(self) -> bool:
        """True when the whole body has arrived."""
        return self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()
