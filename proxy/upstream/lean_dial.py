"""Opens a connection: resolves the name, races the addresses, performs the TLS handshake.

Rule of the file: each step has its own failure code, and one time limit covers all of them. No socket is ever left
open. Nothing of the request was sent yet, so every failure here is safe to retry.

Source: RFC 8305 (Happy Eyeballs: 250 ms between attempts, families interleaved).
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohappyeyeballs

from proxy.upstream import failures
from proxy.upstream.lean_connection import Connection
from proxy.upstream.origin import Origin

_NEXT_ADDRESS_AFTER_S = 0.25
_LATE_S = 0.05
"""A timer that comes so late tells that this process had no CPU."""


async def dial(origin: Origin, tls: ssl.SSLContext | None, connection: Connection, timeout_s: float) -> None:
    """Connect `connection` to the origin.

    Raises:
        Overloaded: this process can open no socket.
        UpstreamFailed: name, address or TLS failed. UpstreamTimeout: the whole took longer than `timeout_s`, not
            counting once the time that this process stood still at the end of it.
    """
    try:
        async with _time_limit(timeout_s):
            await _dial(origin, tls, connection)
    except TimeoutError as error:
        raise failures.timed_out(failures.CONNECT_TIMEOUT, sent=False) from error
    except ssl.SSLError as error:
        raise failures.failed(failures.TLS_FAILED, sent=False) from error
    except OSError as error:
        if error.errno in failures.OUR_OWN:
            raise failures.out_of_descriptors() from error
        raise failures.failed(failures.CONNECT_FAILED, sent=False) from error


@asynccontextmanager
async def _time_limit(timeout_s: float) -> AsyncIterator[None]:
    """Raise TimeoutError after `timeout_s`; as much later, once, as the event loop is late then.

    A connection that was made meanwhile has not been looked at yet, and uvloop runs timers first: the provider would be
    blamed for our own standstill.
    """
    loop = asyncio.get_running_loop()
    due_at = loop.time() + timeout_s
    async with asyncio.timeout_at(None) as limit:

        def expire() -> None:
            now = loop.time()
            late_s = now - due_at
            limit.reschedule(now + min(late_s, timeout_s) if late_s > _LATE_S else now)

        timer = loop.call_at(due_at, expire)
        try:
            yield
        finally:
            timer.cancel()


async def _dial(origin: Origin, tls: ssl.SSLContext | None, connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise failures.failed(failures.DNS_FAILED, sent=False) from error
    plain = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S, interleave=1, loop=loop
    )
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        await loop.create_connection(
            lambda: connection, sock=plain, ssl=tls, server_hostname=origin.host if tls else None
        )
    except BaseException as error:
        plain.close()
        if tls is not None and isinstance(error, ConnectionError):
            # The peer closed the connection during the handshake.
            raise failures.failed(failures.TLS_FAILED, sent=False) from error
        raise
