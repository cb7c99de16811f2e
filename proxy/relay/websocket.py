"""Relay of a websocket: two pumps, message by message, until both sides have closed or one disconnects.

Pings and pongs pass through, so that each side measures the other and not us. So do close frames, with code and reason:
what a side still sends before it answers one arrives, and so does its own answer; after `_ANSWER_WAIT_S` without an
answer the close frame itself is sent back. Text from the provider goes to the observer, which reads usage from it; by
default it is unchanged.

A session may be limited: the allowance is asked after every text of the provider. A text that is not covered is not
sent; the client gets an error message of the realtime dialect, and both sides a close frame. A session may be scanned:
then texts of the provider may wait, be changed (`scanned`), or end the session in the same way. Payloads of its pings
and pongs and the reason of its close frame are scanned, too, each for itself; pings do not wait.

Failure mode: a side that disconnects without a close frame is an error; the caller then drops the other one likewise.
Source: RFC 6455 sections 5.5 and 7.1.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from proxy.errors import ClientDisconnected, ProxyError, UpstreamFailed
from proxy.event_loop.off_loop import LARGE_BYTES, decoded_off_loop
from proxy.exchange import Allowance, Dialect, Message, Meter, WebsocketPeer
from proxy.nouns.scanners import OutputScanner
from proxy.openai import json_steps, lenient
from proxy.openai.pieces import encoded
from proxy.openai.stream_end import realtime_error
from proxy.relay.answer import reason_of
from proxy.relay.scanned import ScannedStream
from proxy.websocket_frames import control_text, with_control_text

_NORMAL, _POLICY = 1000, 1008
_ANSWER_WAIT_S = 5.0
_SMALL_CHARACTERS = 65_536
"""Longer messages are metered in a thread."""
_CLOSE_WAIT_S = 1.0
"""A provider that does not read must not delay the message to the client."""


@dataclass(frozen=True, slots=True)
class SessionLimit:
    """The limit of a session. `seal` settles and records; it runs before the client is notified."""

    meter: Meter
    allowance: Allowance
    seal: Callable[[], None]


@dataclass(frozen=True, slots=True)
class SessionScan:
    """The scanner of the provider's texts in a session. `seal`: as for a limit."""

    meter: Meter
    scanner: OutputScanner
    dialect: Dialect
    seal: Callable[[], None]


async def relay_websocket(
    client: WebsocketPeer,
    provider: WebsocketPeer,
    observe: Callable[[str], None],
    closed: Callable[[], None],
    limit: SessionLimit | None = None,
    *,
    scan: SessionScan | None = None,
    hear: Callable[[str], None] | None = None,
) -> None:
    """Pump both directions until both sides have closed, or one has disconnected.

    `observe` gets each text message of the provider before the client does, `hear` each one of the client before the
    provider does; `closed` runs when the session has ended by a close frame, before the client gets one.

    Raises:
        ClientDisconnected, UpstreamFailed: a side disconnected before any had closed.
    """
    if limit is not None:
        provider, observe = _BoundedProvider(provider, observe, limit), _ignore
    if scan is not None:
        provider, observe = _ScannedProvider(provider, observe, scan), _ignore
    heard = hear or _ignore
    pumps = (
        asyncio.create_task(_pump(client, provider, heard, _nothing, _client_lost), name="websocket to provider"),
        asyncio.create_task(_pump(provider, client, observe, closed, _provider_lost), name="websocket to client"),
    )
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if (close := _close_of(*pumps)) is not None:
            await asyncio.wait(pumps, timeout=_ANSWER_WAIT_S)
        _raise_failure(pumps, after_close=close is not None)
        if close is not None:
            closed()
            for pump, sink in zip(pumps, (provider, client), strict=True):
                if _close_of(pump) is None:
                    with suppress(ProxyError):
                        await sink.send(close)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        if _close_of(*pumps) is not None:
            closed()


def _close_of(*pumps: asyncio.Task[Message]) -> Message | None:
    """Return the close frame that one of the pumps has passed on; `None` if none has."""
    for pump in pumps:
        if pump.done() and not pump.cancelled() and pump.exception() is None:
            return pump.result()
    return None


def _raise_failure(pumps: Iterable[asyncio.Task[Message]], *, after_close: bool) -> None:
    """Raise what ended a pump. `after_close`: a side that is lost then has nothing to add."""
    for pump in pumps:
        if pump.done() and not (after_close and isinstance(pump.exception(), ProxyError)):
            pump.result()


async def _pump(
    source: WebsocketPeer,
    sink: WebsocketPeer,
    observe: Callable[[str], None],
    closed: Callable[[], None],
    lost: Callable[[], ProxyError],
) -> Message:
    """Pass messages on until a close frame, which is passed on and returned."""
    while True:
        message = await source.receive()
        if message.kind == "text" and isinstance(message.data, str):
            await _observed(observe, message.data)
        if message.kind == "close":
            if message.abrupt:
                raise lost()
            closed()
            await sink.send(message)
            return message
        await sink.send(message)


class _BoundedProvider:
    """The provider, up to the limit of the allowance; then an error and a close frame end the session."""

    def __init__(self, provider: WebsocketPeer, observe: Callable[[str], None], limit: SessionLimit) -> None:
        self._provider = provider
        self._observe = observe
        self._limit = limit
        self._last: list[Message] = []

    async def receive(self) -> Message:
        """Return the provider's next message, or ours if the session ends."""
        if self._limit.meter.cut:
            return self._last.pop(0)
        message = await self._provider.receive()
        if message.kind == "text" and isinstance(message.data, str) and not await self._is_covered(message.data):
            return self._last.pop(0)
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the client, unless the session has ended."""
        if not self._limit.meter.cut:
            await self._provider.send(message)

    async def _is_covered(self, text: str) -> bool:
        meter, allowance = self._limit.meter, self._limit.allowance
        texts = meter.text_deltas
        await _observed(self._observe, text)
        if allowance.covers(meter) or await allowance.extend(meter):
            return True
        # Messages without text, such as the usage of a finished response, cost nothing more.
        self._last = [Message("text", text)] if meter.text_deltas == texts else []
        await self._cut(reason_of(allowance))
        return False

    async def _cut(self, reason: ProxyError) -> None:
        """End the session: record it, then tell the provider, which must stop, then the client."""
        self._last += _farewell(reason)
        self._limit.meter.cut = True
        self._limit.seal()
        await _dismiss(self._provider)


class _ScannedProvider:
    """The provider, as far as the policy permits; then an error and a close frame end the session."""

    def __init__(self, provider: WebsocketPeer, observe: Callable[[str], None], scan: SessionScan) -> None:
        self._provider = provider
        self._observe = observe
        self._meter = scan.meter
        self._seal = scan.seal
        self._stream: ScannedStream[Message] = ScannedStream(scan.dialect, scan.scanner, _with_data)
        self._ready: deque[Message] = deque()

    async def receive(self) -> Message:
        """Return the provider's next message that may be sent, or ours if the session ends."""
        while not self._ready:
            message = await self._provider.receive()
            is_control = message.kind in ("ping", "pong")
            if is_control and not message.data:
                return message
            scan = partial(self._scanned, message)
            is_large = not is_control and (len(message.data) > LARGE_BYTES or self._stream.holds_large)
            ready = await decoded_off_loop(scan) if is_large else scan()
            if is_control and self._stream.error is None:
                return ready[0]
            self._ready += ready
            if self._stream.error is not None and not self._meter.withheld:
                self._ready += _farewell(self._stream.error)
                self._meter.withheld = True
                self._seal()
                await _dismiss(self._provider)
        return self._ready.popleft()

    async def send(self, message: Message) -> None:
        """Send a message of the client, unless the session has ended."""
        if not self._meter.withheld:
            await self._provider.send(message)

    def _scanned(self, message: Message) -> list[Message]:
        if message.kind == "text" and isinstance(message.data, str):
            self._observe(message.data)
            data = encoded(message.data, "surrogatepass")
            document = lenient.read_container(data)
            try:
                return self._stream.take(message, data, None, document)
            finally:
                json_steps.let_go(document, data)
        if message.kind == "binary":
            self._stream.miss("message", "binary")
            return self._stream.abandon() if self._stream.error else self._stream.pass_by(message, len(message.data))
        if message.kind in ("ping", "pong"):
            beside = self._beside(message)
            return self._stream.abandon() if self._stream.error else [beside]
        left = self._stream.abandon() if message.abrupt else self._stream.end()
        if not self._stream.error:
            message = self._beside(message)
        return left if self._stream.error else [*left, message]

    def _beside(self, message: Message) -> Message:
        """Return a control frame as it may be sent; or set the stream's error."""
        text = control_text(message)
        return message if not text or (sent := self._stream.aside(text)) == text else with_control_text(message, sent)


async def _observed(observe: Callable[[str], None], text: str) -> None:
    if len(text) <= _SMALL_CHARACTERS or observe is _ignore:
        observe(text)
    else:
        await decoded_off_loop(partial(observe, text))


def _farewell(reason: ProxyError) -> list[Message]:
    """Return the messages for a client whose session we end."""
    return [Message("text", realtime_error(reason)), Message("close", reason.code or "", _POLICY)]


async def _dismiss(provider: WebsocketPeer) -> None:
    """Close the provider's side; one that does not read must not keep the client waiting."""
    with suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(_CLOSE_WAIT_S):
            await provider.send(Message("close", "", _NORMAL))


def _with_data(_message: Message, data: bytes) -> Message:
    return Message("text", data.decode("utf-8", "surrogatepass"))


def _client_lost() -> ProxyError:
    return ClientDisconnected("The client closed the connection.")


def _provider_lost() -> ProxyError:
    return UpstreamFailed("The provider dropped the websocket without closing it.", code="upstream_body_cut")


def _ignore(_text: str) -> None:
    """Ignore a message."""


def _nothing() -> None:
    """Do nothing when the client closes: the provider may still send messages that count."""
