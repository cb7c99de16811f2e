"""Opens a connection: resolves the name, races the addresses, performs the TLS handshake.

Rule of the file: each step has its own failure code, and one time limit covers all of them. No socket is ever left
open. Nothing of the request was sent yet, so every failure here is safe to retry.

Source: RFC 8305 (Happy Eyeballs: 250 ms between attempts, families interleaved).
"""

import asyncio
import socket
import ssl

import aiohappyeyeballs

from proxy.upstream import failures
from proxy.upstream.lean_connection import Connection
from proxy.upstream.origin import Origin

_NEXT_ADDRESS_AFTER_S = 0.25


async def dial(origin: Origin, tls: ssl.SSLContext | None, connection: Connection, timeout_s: float) -> None:
    """Connect `connection` to the origin.

    Raises:
        UpstreamFailed: name, address or TLS failed. UpstreamTimeout: the whole took longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await _dial(origin, tls, connection)
    except TimeoutError as error:
        raise failures.timed_out(failures.CONNECT_TIMEOUT, sent=False) from error
    except ssl.SSLError as error:
        raise failures.failed(failures.TLS_FAILED, sent=False) from error
    except OSError as error:
        raise failures.failed(failures.CONNECT_FAILED, sent=False) from error


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
