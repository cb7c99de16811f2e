"""Relay of a websocket: two pumps, message by message, until one side closes or is lost.

Pings and pongs pass through, so that each side measures the other and not us. A close frame is passed on with its code
and reason. Text from the provider is shown to the observer, which reads usage from it; text is never changed.

Failure mode: a side that vanished without a close frame is an error; the caller then drops the other, without one too.
Source: RFC 6455 sections 5.5 and 7.1.
"""

import asyncio
from collections.abc import Callable

from proxy.errors import ClientDisconnected, ProxyError, UpstreamFailed
from proxy.exchange import WebsocketPeer


async def relay_websocket(
    client: WebsocketPeer, provider: WebsocketPeer, observe: Callable[[str], None], closed: Callable[[], None]
) -> None:
    """Pump both directions until one of them ends; cancels the other.

    `observe` sees each text message of the provider before the client does; `closed` runs when a close frame has come,
    before it is passed on.

    Raises:
        ClientDisconnected, UpstreamFailed: a side was lost instead of closed.
    """
    pumps = (
        asyncio.create_task(_pump(client, provider, _ignore, closed, _client_lost), name="websocket to provider"),
        asyncio.create_task(_pump(provider, client, observe, closed, _provider_lost), name="websocket to client"),
    )
    try:
        done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in done:
            pump.result()
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    source: WebsocketPeer,
    sink: WebsocketPeer,
    observe: Callable[[str], None],
    closed: Callable[[], None],
    lost: Callable[[], ProxyError],
) -> None:
    while True:
        message = await source.receive()
        if message.kind == "text" and isinstance(message.data, str):
            observe(message.data)
        if message.kind == "close":
            if message.abrupt:
                raise lost()
            closed()
            await sink.send(message)
            return
        await sink.send(message)


def _client_lost() -> ProxyError:
    return ClientDisconnected("The client closed the connection.")


def _provider_lost() -> ProxyError:
    return UpstreamFailed("The provider dropped the websocket without closing it.", code="upstream_body_cut")


def _ignore(_text: str) -> None:
    """Look at nothing: what the client sends is not metered here."""
