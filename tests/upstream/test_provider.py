import asyncio
import json

import pytest

from proxy.config.schema import UpstreamEntry
from proxy.exchange import Attempt, Candidate, Inbound, Message, first_values
from proxy.openai.operations import match
from proxy.upstream.provider import Provider
from proxy.upstream.stats import ClientStats
from tests.relay.peers import JSON, Reply, Socket

KEY = "sk-provider-0123456789"
HEADERS = ((b"Authorization", b"Bearer sk-client"), (b"X-A", b"1"), (b"Host", b"sidegate"), (b"x-sidegate-user", b"u"))


class Session(Reply):
    """An accepted handshake."""

    subprotocol = "realtime"

    def __init__(self):
        super().__init__((), status=101)
        self.socket = Socket(Message("text", "hello"))


class Transport:
    """`Client` and websocket client in one: keeps what it was given."""

    def __init__(self):
        self.requests = []
        self.closed = 0

    async def send(self, request):
        self.requests.append(request)
        request.on_sent()
        return Reply([b"hello"], (JSON,))

    async def connect(self, request):
        self.requests.append(request)
        return Session()

    def stats(self):
        return ClientStats(open=3, idle=2, waiting=1)

    async def close(self):
        self.closed += 1


def provider(transport=None, **settings):
    transport = transport or Transport()
    return Provider(UpstreamEntry(**{"api_key": KEY, **settings}), transport, transport)


def inbound(target="/v1/chat/completions?a=%20", *, length=2):
    return Inbound(
        "POST", target, "/v1/x", HEADERS, first_values(HEADERS), match("POST", "/v1/x", False), None, length, True
    )


def attempt():
    return Attempt(0, Candidate("default", "gpt-4o"), 0.0)


class Answer:
    def __init__(self, *headers):
        self.headers = headers


@pytest.mark.parametrize(
    ("base_url", "target", "url"),
    [
        ("https://api.openai.com/v1", "/v1/models", "https://api.openai.com/v1/models"),
        ("https://host/openai/v1/", "/v1/models?x=1#", "https://host/openai/v1/models?x=1#"),
        ("http://127.0.0.1:1/x", "/v1/a%2Fb/?q=%zz", "http://127.0.0.1:1/x/a%2Fb/?q=%zz"),
    ],
)
def test_url_when_made_then_what_followed_v1_is_appended_untouched(base_url, target, url):
    assert provider(base_url=base_url).url(inbound(target)) == url


async def test_request_when_sent_then_it_has_the_providers_credential_and_the_clients_body():
    transport = Transport()
    tried = attempt()
    reply = await provider(transport, headers={"OpenAI-Organization": "org"}).send(tried, inbound(), b"{}")
    assert (reply.status, reply.headers, await reply.read()) == (200, (JSON,), b"hello")
    (request,) = transport.requests
    assert (request.method, request.body, request.content_length) == ("POST", b"{}", 2)
    assert (b"Authorization", f"Bearer {KEY}".encode()) in request.headers
    assert (b"OpenAI-Organization", b"org") in request.headers
    assert (b"X-A", b"1") in request.headers
    assert b"sk-client" not in b"".join(value for _, value in request.headers)
    assert not {b"host", b"x-sidegate-user"} & {name.lower() for name, _ in request.headers}


async def test_attempt_when_the_first_byte_leaves_then_it_knows():
    tried = attempt()
    await provider().send(tried, inbound(), None)
    assert tried.sent
    waiting = attempt()
    await provider().connect(waiting, inbound())
    assert not waiting.sent


async def test_websocket_when_opened_then_it_asks_the_same_place_without_a_body():
    transport = Transport()
    reply = await provider(transport).connect(attempt(), inbound("/v1/realtime?model=m", length=None))
    assert (reply.subprotocol, await reply.socket.receive()) == ("realtime", Message("text", "hello"))
    (request,) = transport.requests
    assert (request.url, request.body) == ("https://api.openai.com/v1/realtime?model=m", None)
    assert (b"Authorization", f"Bearer {KEY}".encode()) in request.headers


async def test_request_when_no_key_is_configured_then_no_credential_is_sent():
    transport = Transport()
    await provider(transport, api_key=None).send(attempt(), inbound(), None)
    assert b"authorization" not in {name.lower() for name, _ in transport.requests[0].headers}


def test_answer_when_it_echoes_our_key_then_the_client_does_not_see_it():
    answer = Answer((b"X-Echo", f"Bearer {KEY}".encode()), (b"x-request-id", b"req_1"))
    headers = provider().response_headers(answer)
    assert KEY.encode() not in b"".join(value for _, value in headers)
    assert (b"x-request-id", b"req_1") in headers


async def test_provider_when_closed_then_both_its_clients_are():
    transport = Transport()
    closing = provider(transport)
    assert closing.stats() == ClientStats(open=3, idle=2, waiting=1)
    assert (closing.name, closing.force_stream_usage) == ("default", True)
    await closing.close()
    assert transport.closed == 2


async def test_body_when_it_is_large_then_the_model_is_renamed_while_others_get_their_turn():
    transport, tried = Transport(), Attempt(0, Candidate("default", "gpt-4o", sent_as="own", replaces_model=True), 0.0)
    messages = [{"role": "user", "content": "hello", "name": "model"}] * 3000
    body = json.dumps({"model": "gpt-4o", "messages": messages, "tool": {"model": "inner"}, "n": 10**30}).encode()
    sending = asyncio.ensure_future(provider(transport).send(tried, inbound(), body))
    turns = 0
    while not sending.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    assert json.loads(transport.requests[0].body) == {**json.loads(body), "model": "own"}
