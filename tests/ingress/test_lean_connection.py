"""What only the lean server can get wrong: heads in pieces, what follows at once, and leaving for aiohttp."""

import asyncio
from contextlib import suppress

import pytest

from proxy.config.schema import Limits
from proxy.exchange import Delivery, Headers
from proxy.ingress import lingering
from proxy.ingress.client_body import ClientBody
from proxy.ingress.downstream import HttpDownstream
from proxy.ingress.lean_connection import LeanRequest
from tests.ingress.wire import request, serving, until


@pytest.fixture(autouse=True)
def _kind_of_server():
    """One server is enough here."""


async def echo(asked):
    """Answer with who read the request, its target and its body."""
    downstream = HttpDownstream(asked, Delivery(), 5.0)
    body = await ClientBody(asked, Limits()).read(1 << 20)
    headers: Headers = ((b"X-Read-By", b"lean" if isinstance(asked, LeanRequest) else b"aiohttp"),)
    await downstream.send(200, "OK", headers, asked.target.encode() + b" " + body)
    return downstream


def chunked(target: str, body: bytes) -> bytes:
    head = request(target, "Transfer-Encoding: chunked", method="POST")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def test_request_when_it_comes_in_two_pieces_cut_anywhere_then_it_is_read_as_one():
    wire = request("/v1/x", "X-A: 1", method="POST", body=b"{}")
    async with serving(echo) as server, server.client() as client:
        for cut in range(1, len(wire)):
            await client.say(wire[:cut])
            await asyncio.sleep(0.001)
            await client.say(wire[cut:])
            answer = await client.answer()
            assert (answer.body, answer.value(b"x-read-by")) == (b"/v1/x {}", b"lean")


async def test_requests_when_sent_at_once_then_each_is_answered_in_its_turn_whoever_reads_it():
    wire = b"".join(
        (
            request("/v1/1", method="POST", body=b"one"),
            request("/v1/2"),
            request("/v1/3", method="POST", body=b"x" * 100_000),
            chunked("/v1/4", b"four"),
            request("/v1/5"),
        )
    )
    async with serving(echo) as server, server.client() as client:
        await client.say(wire)
        answers = [await client.answer() for _ in range(5)]
        await until(lambda: len(server.manager.connections) == 1)
    assert [answer.body[:9] for answer in answers] == [b"/v1/1 one", b"/v1/2 ", b"/v1/3 xxx", b"/v1/4 fou", b"/v1/5 "]
    assert [answer.value(b"x-read-by") for answer in answers] == [b"lean"] * 3 + [b"aiohttp"] * 2


async def test_request_when_its_target_is_answered_elsewhere_then_aiohttp_reads_it():
    async with serving(echo) as server:
        server.manager.is_elsewhere = lambda target: target.startswith("/v1/traces")
        for target, reader in (("/v1/traces/x", b"aiohttp"), ("/v1/models", b"lean")):
            assert (await server.ask(request(target))).value(b"x-read-by") == reader


async def test_client_when_it_leaves_while_aiohttp_is_loaded_then_nothing_remains():
    async with serving(echo) as server:
        async with server.client() as client:
            await client.say(chunked("/v1/x", b"x"))
            client.reset()
        await until(lambda: not server.manager.connections)
        assert (await server.ask(chunked("/v1/x", b"yz"))).body == b"/v1/x yz"


async def test_head_when_known_then_what_the_handler_made_of_it_comes_back():
    seen = []

    async def remembering(asked):
        seen.append((asked.recall(None), asked.content_length))
        asked.remember(None, len(seen))
        return await echo(asked)

    async with serving(remembering) as server, server.client() as client:
        for body, line in ((b"{}", "A: 1"), (b"{}", "A: 1"), (b"[1,2]", "A: 1"), (b"{}", "A: 2"), (b"{}", "A: 1")):
            await client.say(request("/v1/x", line, method="POST", body=body))
            await client.answer()
        async with server.client() as other:
            await other.say(request("/v1/x", "A: 1", method="POST", body=b"{}"))
            await other.answer()
    assert seen == [(None, 2), (1, 2), (2, 5), (None, 2), (None, 2), (None, 2)]


async def test_answers_when_several_are_given_in_one_turn_then_they_arrive_in_order_and_before_the_end():
    """Small answers wait for the end of the turn; neither a stream nor the end of the connection may overtake them."""
    seen = []

    async def by_turns(asked):
        seen.append(asyncio.current_task())
        downstream = HttpDownstream(asked, Delivery(), 5.0)
        if asked.target.endswith("stream"):
            await downstream.start(200, "OK", (), None)
            await downstream.write(b"streamed")
            await downstream.finish()
            return downstream
        if asked.target.endswith("last"):
            downstream.refuse_more()
        await downstream.send(200, "OK", (), asked.target.encode())
        return downstream

    targets = ["/v1/1", "/v1/2", "/v1/stream", "/v1/4", "/v1/5", "/v1/last"]
    async with serving(by_turns) as server, server.client() as client:
        await client.say(b"".join(map(request, targets)))
        bodies = [(await client.answer()).body for _ in targets]
        assert await client.rest() == b""
    assert bodies == [b"streamed" if target == "/v1/stream" else target.encode() for target in targets]
    assert len(set(seen)) == 1


async def test_answer_when_it_waits_while_the_next_request_is_for_aiohttp_then_both_arrive_in_order():
    async with serving(echo) as server, server.client() as client:
        await server.ask(chunked("/v1/loaded", b"x"))
        await client.say(request("/v1/1") + request("/v1/2") + chunked("/v1/3", b"three"))
        assert [(await client.answer()).body for _ in range(3)] == [b"/v1/1 ", b"/v1/2 ", b"/v1/3 three"]


async def test_rest_of_a_body_when_it_comes_long_after_a_streamed_answer_then_it_is_no_request(monkeypatch):
    monkeypatch.setattr(lingering, "_PAUSE_S", 0.02)
    asked_for = []

    async def early(asked):
        asked_for.append(asked.target)
        downstream = HttpDownstream(asked, Delivery(), 5.0)
        await downstream.start(200, "OK", (), None)
        await downstream.finish()
        return downstream

    hidden = request("/v1/hidden")
    whole = request("/v1/x", method="POST", body=hidden)
    async with serving(early) as server, server.client() as client:
        await client.say(whole.removesuffix(hidden))
        assert (await client.answer()).status == 200
        await until(lambda: not server.manager.connections)
        with suppress(ConnectionError):
            await client.say(hidden)
    assert asked_for == ["/v1/x"]
