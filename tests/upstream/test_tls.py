"""TLS on both kinds: trusted, untrusted, wrong name, no TLS at all."""

import contextlib
import socket
import ssl
import threading

import pytest
import trustme

from proxy.errors import UpstreamFailed
from tests.upstream.peer import OK, Talk, answering, body_of, client_for, get, peer, post, until


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def _server(authority, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture(params=["lean", "aiohttp"])
def kind(request):
    return request.param


async def test_tls_when_trusted_speaks_http11_and_reuses_the_connection(kind, authority, ca_file):
    protocols = []

    async def script(talk: Talk) -> None:
        protocols.append(talk.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await answering(OK)(talk)

    async with (
        peer(script, _server(authority, "localhost")) as provider,
        client_for(provider.url, kind, ca_file=ca_file) as client,
    ):
        for size in (2, 500_000, 2):
            assert await body_of(await client.send(post(provider.url + "/", b"x" * size))) == b"ok"
        assert provider.connections == 1
        reply = await client.send(get(provider.url + "/"))
        reply.close()
        await client.close()
        await until(lambda: client.stats().open == 0)
    assert protocols[0] == "http/1.1"


@pytest.mark.parametrize("case", ["wrong name", "unknown authority", "not TLS", "hangs up"])
async def test_tls_when_it_cannot_be_trusted_fails_unsent(kind, authority, ca_file, case):
    async def script(talk: Talk) -> None:
        if case == "not TLS":
            await talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await talk.gone()

    server = None if case in ("not TLS", "hangs up") else _server(authority, "other" if "name" in case else "localhost")
    trusted = None if case == "unknown authority" else ca_file
    async with peer(script, server) as provider:
        url = provider.url.replace("http:", "https:")
        async with client_for(url, kind, ca_file=trusted) as client:
            with pytest.raises(UpstreamFailed) as caught:
                await client.send(get(url + "/"))
            assert not caught.value.sent
            assert caught.value.code in ("upstream_tls_failed", "upstream_connect_failed")
            assert caught.value.code == "upstream_tls_failed" or kind == "aiohttp"
            await until(lambda: client.stats().open == 0)


@contextlib.contextmanager
def saying(authority, answer, *, says_goodbye):
    """A provider that answers one request and ends TCP, with TLS's own end before it or without."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        plain, _ = listener.accept()
        secure = _server(authority, "localhost").wrap_socket(plain, server_side=True)
        secure.recv(65_536)
        secure.sendall(answer)
        if says_goodbye:
            with contextlib.suppress(OSError):
                secure.unwrap()
        socket.socket(fileno=secure.detach()).close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(5)


TO_THE_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it"
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf of it"


@pytest.mark.parametrize(
    ("answer", "says_goodbye", "is_whole"),
    [(TO_THE_END, True, True), (TO_THE_END, False, False), (COUNTED, True, True), (COUNTED, False, True)],
    ids=["to the end", "to the end of TCP only", "counted", "counted, to the end of TCP only"],
)
async def test_answer_when_tls_ends_without_saying_so_then_only_a_framed_one_is_complete(
    authority, ca_file, answer, says_goodbye, is_whole
):
    with saying(authority, answer, says_goodbye=says_goodbye) as url:
        async with client_for(url, "lean", ca_file=ca_file) as client:
            reply = await client.send(get(url + "/"))
            if is_whole:
                assert await body_of(reply) == b"half of it"
                return
            with pytest.raises(UpstreamFailed) as caught:
                await body_of(reply)
            assert caught.value.code == "upstream_body_cut"
