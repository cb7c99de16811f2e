"""Reads model and usage from a JSON answer as it passes: all of it if it is small, its two ends if it is large.

Failure mode: an encoding that is unknown, invalid or expands too much leaves the meter unchanged; the answer passes and
its usage is estimated.
"""

from proxy.errors import UpstreamFailed
from proxy.exchange import Dialect, Meter
from proxy.openai.decoding import Decoder, supported
from proxy.openai.response import END_BYTES, inspect, inspect_ends

_PIECE_BYTES = 262_144
_MOST_DECODED_BYTES = 67_108_864
"""Decompression runs on the event loop, and a few kilobytes can expand to gigabytes."""


class BodyInspector:
    """Inspects one answer. `limit_bytes`: up to this decoded size it is parsed as a whole."""

    def __init__(self, dialect: Dialect, content_encoding: bytes, limit_bytes: int) -> None:
        self._dialect = dialect
        self._limit_bytes = limit_bytes
        self._decoder = Decoder(content_encoding, _PIECE_BYTES) if supported(content_encoding) else None
        self._readable = self._decoder is not None or not content_encoding
        self._kept: list[bytes] = []
        self._size = 0
        self._tail = b""

    @property
    def kept_bytes(self) -> int:
        """How much `finish` has to read."""
        return min(self._size, self._limit_bytes)

    def feed(self, piece: bytes) -> None:
        """Inspect the next piece of the body."""
        if not self._readable:
            return
        if self._decoder is None:
            self._keep(piece)
            return
        try:
            for plain in self._decoder.feed(piece):
                self._keep(plain)
                if self._size > _MOST_DECODED_BYTES:
                    self._readable = False
                    return
        except UpstreamFailed:
            self._readable = False

    def finish(self, meter: Meter) -> None:
        """Fill the meter from a complete body."""
        meter.terminated = True
        if not self._readable:
            return
        if self._size <= self._limit_bytes:
            inspect(self._dialect, b"".join(self._kept), meter)
        else:
            inspect_ends(self._dialect, b"".join(self._kept)[:END_BYTES], self._tail, meter)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._limit_bytes:
            self._kept.append(piece)
            return
        if not self._tail:
            whole = b"".join(self._kept)
            self._kept = [(whole + piece)[:END_BYTES]]
            self._tail = (whole + piece)[-END_BYTES:]
        else:
            self._tail = (self._tail + piece)[-END_BYTES:]
