"""Keeps our own credentials out of compressed answers: a decoded copy is searched while the original bytes pass.

A credential cannot be masked inside compressed bytes. So an answer that contains one is cut before it, as if the
provider had broken off; nothing of the credential has passed. This matters because clients request gzip themselves, and
providers' error messages quote keys.

A few kilobytes may expand to megabytes. A piece that does is passed on in parts, and the event loop gets a turn before
each of them, so one turn decodes about a megabyte at most.

Failure mode: an encoding that we did not offer, an invalid one, and anything after 64 MiB of decoded text is not
searched. If the text so far ends in what may be the beginning of a credential, up to a megabyte of further bytes is
held, then passes.
"""

import asyncio
from typing import Final

from proxy.errors import UpstreamFailed
from proxy.exchange import Headers, Sink, UpstreamReply
from proxy.openai.decoding import Decoder, coding_of, supported

_ECHOED: Final = "upstream_credential_echoed"
_PIECE_BYTES: Final = 262_144
_MOST_DECODED_BYTES: Final = 67_108_864
"""A few kilobytes can expand to gigabytes."""
_STEP_BYTES: Final = 2048
"""Of compressed bytes: they expand to 2 MiB at most."""
_PART_BYTES: Final = 524_288
"""Of decoded text, in a part; a step may exceed it."""
_MOST_PART_BYTES: Final = 65_536
"""Of compressed bytes, in a part: empty members of gzip expand to nothing."""
_MOST_HELD_BYTES: Final = 1_048_576


def searched(reply: UpstreamReply, secrets: tuple[bytes, ...]) -> UpstreamReply:
    """Return the reply, wrapped if it is compressed in a way that can be read."""
    encoding = coding_of(reply)
    return EncodedReply(reply, encoding, secrets) if supported(encoding) else reply


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
        self._ahead: bytes | None = None
        """Has arrived, and is to be searched; `None`: nothing was read yet."""
        self._held = b""
        self._tail = b""
        self._decoded_bytes = 0
        self.status = reply.status
        self.reason = reply.reason
        self.headers: Headers = reply.headers
        self.fields = reply.fields

    async def read(self, _sink: Sink | None = None) -> bytes:
        """Return what has arrived and ends in no beginning of a credential. Raises UpstreamFailed at a credential."""
        if self._ahead:
            await asyncio.sleep(0)
        while self._ahead or (piece := await self._reply.read()):
            if self._take_part(self._ahead or piece) or self.complete or len(self._held) > _MOST_HELD_BYTES:
                break
        held, self._held = self._held, b""
        return held

    def _take_part(self, ahead: bytes) -> bool:
        """Search the first part of `ahead`; False: its end may be the beginning of a credential."""
        at, enough = 0, self._decoded_bytes + _PART_BYTES
        most = min(len(ahead), _MOST_PART_BYTES)
        while self._decoder is not None and at < most and self._decoded_bytes < enough:
            self._search(self._decoder, ahead[at : at + _STEP_BYTES])
            at += _STEP_BYTES
        if self._decoder is None:
            at = len(ahead)
        self._held += ahead[:at]
        self._ahead = ahead[at:]
        return self._decoder is None or not self._tail or safe_length(self._tail, self._secrets) == len(self._tail)

    def _search(self, decoder: Decoder, data: bytes) -> None:
        try:
            for plain in decoder.feed(data):
                self._decoded_bytes += len(plain)
                text = self._tail + plain
                self._tail = text[-self._overlap :] if self._overlap else b""
                if any(secret in text for secret in self._secrets):
                    raise UpstreamFailed(
                        "The provider's answer holds a credential of ours in compressed form; it was stopped.",
                        code=_ECHOED,
                    )
                if self._decoded_bytes > _MOST_DECODED_BYTES:
                    self._decoder = None
                    return
        except UpstreamFailed as error:
            if error.code == _ECHOED:
                raise
            self._decoder = None

    @property
    def complete(self) -> bool:
        """True when `read` has returned the whole body; never before the first time, as that may be a part."""
        return self._ahead == b"" and self._reply.complete

    def close(self) -> None:
        """Close the wrapped reply."""
        self._reply.close()
