"""The pool on real connections: order, cap, age, hand-over."""

import asyncio

import pytest

from proxy.errors import ShuttingDown, UpstreamFailed, UpstreamTimeout
from proxy.event_loop.write_batching import LoopTurn
from proxy.upstream.failures import CONNECT_TIMEOUT, timed_out
from proxy.upstream.lean_connection import Bounds, Connection
from proxy.upstream.lean_pool import Pool
from tests.upstream.peer import OK, Talk, answering, body_of, client_for, get, peer, until


def _gated(heard, gate):
    """Note on which connection a request came, and answer when the gate is open."""

    async def script(talk: Talk) -> None:
        while True:
            await talk.request()
            heard.append(talk.number)
            await gate.wait()
            await talk.say(OK)

    return script


async def _one(client, provider):
    return await body_of(await client.send(get(provider.url + "/")))


async def test_idle_connection_when_old_is_closed_and_younger_ones_stay():
    heard, gate = [], asyncio.Event()
    async with (
        peer(_gated(heard, gate)) as provider,
        client_for(provider.url, "lean", idle_connection_s=0.6) as client,
    ):
        both = [asyncio.create_task(_one(client, provider)) for _ in range(2)]
        await until(lambda: len(heard) == 2)
        gate.set()
        await asyncio.gather(*both)
        assert (client.stats().open, client.stats().idle) == (2, 2)
        await asyncio.sleep(0.2)
        await _one(client, provider)
        younger = heard[-1]
        # The peer learns of a close later than the pool's own count, so the order of the closes is what can be asked.
        await until(lambda: client.stats().open == 0)
        await until(lambda: len(provider.closed) == 2)
        assert (provider.connections, provider.closed[-1]) == (2, younger)


async def test_idle_connections_when_several_are_reused_last_in_first_out():
    heard, gate = [], asyncio.Event()
    async with peer(_gated(heard, gate)) as provider, client_for(provider.url, "lean") as client:
        tasks = [asyncio.create_task(_one(client, provider)) for _ in range(3)]
        await until(lambda: len(heard) == 3)
        gate.set()
        await asyncio.gather(*tasks)
        del heard[:]
        for _ in range(4):
            await _one(client, provider)
        assert len(set(heard)) == 1


async def test_cap_when_a_burst_comes_is_never_passed_and_everybody_is_served():
    async with peer(answering(OK)) as provider, client_for(provider.url, "lean", max_connections=3) as client:
        answers = await asyncio.gather(*[_one(client, provider) for _ in range(60)])
        assert answers == [b"ok"] * 60
        assert provider.connections <= 3
        assert client.stats().open <= 3


async def test_waiter_when_cancelled_in_the_moment_it_is_served_passes_the_connection_on():
    heard, gate = [], asyncio.Event()
    async with peer(_gated(heard, gate)) as provider, client_for(provider.url, "lean", max_connections=1) as client:
        unlucky = asyncio.create_task(_one(client, provider))
        next_one = asyncio.create_task(_one(client, provider))

        async def open_gate():
            await until(lambda: len(heard) == 1 and client.stats().waiting == 2)
            gate.set()

        opening = asyncio.create_task(open_gate())
        # Awaited here and not in a task: this line and `unlucky` are woken in the same turn of the loop.
        reply = await client.send(get(provider.url + "/"))
        await opening
        assert client.stats().waiting == 1
        unlucky.cancel()
        assert await asyncio.wait_for(next_one, 2) == b"ok"
        assert await body_of(reply) == b"ok"
        assert unlucky.cancelled()
        assert provider.connections == 1


async def test_waiter_when_the_connection_it_waits_for_is_lost_dials_its_own():
    async def script(talk: Talk) -> None:
        await talk.request()
        if talk.number > 1:
            await talk.say(OK)
        else:
            await asyncio.sleep(0.05)

    async with peer(script) as provider, client_for(provider.url, "lean", max_connections=1) as client:
        lost = asyncio.create_task(_one(client, provider))
        await until(lambda: provider.connections == 1)
        served = asyncio.create_task(_one(client, provider))
        with pytest.raises(UpstreamFailed):
            await lost
        assert await served == b"ok"


async def test_close_when_requests_run_and_wait_fails_them_all_and_leaves_no_socket():
    heard, gate = [], asyncio.Event()
    async with peer(_gated(heard, gate)) as provider, client_for(provider.url, "lean", max_connections=1) as client:
        running = asyncio.create_task(_one(client, provider))
        await until(lambda: len(heard) == 1)
        waiting = asyncio.create_task(_one(client, provider))
        await until(lambda: client.stats().waiting == 1)
        await client.close()
        assert client.stats().open == 0
        with pytest.raises(UpstreamFailed) as caught:
            await running
        assert caught.value.sent
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await _one(client, provider)
        gate.set()
        await until(lambda: not provider.open)


async def test_idle_connection_when_only_the_kernel_knows_it_is_closed_is_not_picked():
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)

    async with peer(script) as provider, client_for(provider.url, "lean") as client:
        assert await _one(client, provider) == b"ok"
        await until(lambda: not provider.open)
        # Behind the loop's back: the end of the connection lies unread while the next request begins.
        idle_since = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < idle_since + 0.06:
            pass
        assert await _one(client, provider) == b"ok"
        assert provider.connections == 2


class GivenUp:
    """What is left of a transport whose making uvloop has given up: closed, but not said to be, and nobody is told."""

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...


async def test_connection_when_given_up_in_the_moment_it_was_made_leaves_its_slot_and_close_does_not_wait_for_it():
    async def dial(connection, _timeout_s):
        connection.connection_made(GivenUp())
        raise timed_out(CONNECT_TIMEOUT, sent=False)

    loop = asyncio.get_running_loop()
    bounds = Bounds(line_bytes=100, lines=9, read_ahead=100, first_byte_s=5, gap_s=5)
    pool = Pool(
        lambda: Connection(loop, bounds, pool.release, pool.lost, LoopTurn()),
        dial, max_connections=1, idle_s=5, pool_s=0.01, connect_s=5,
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(UpstreamTimeout):
            await pool.acquire(loop.time() + 5)
        assert pool.stats().open == 0
    async with asyncio.timeout(1):
        await pool.close()


async def test_close_when_a_connection_is_being_made_waits_for_its_end_and_refuses_its_request():
    async def script(talk: Talk) -> None:
        await talk.gone()

    async with peer(script) as provider:
        url = provider.url.replace("http:", "https:")
        async with client_for(url, "lean", connect_s=0.2) as client:
            dialling = asyncio.create_task(client.send(get(url + "/")))
            await until(lambda: provider.connections == 1)
            await client.close()
            assert client.stats().open == 0
            with pytest.raises(UpstreamFailed) as caught:
                await dialling
            assert not caught.value.sent


async def test_request_that_only_reads_when_closed_and_all_are_idle_then_takes_none_of_those():
    heard, gate = [], asyncio.Event()

    async def script(talk: Talk) -> None:
        while talk.number > 2 or talk.number not in heard:
            await talk.request()
            heard.append(talk.number)
            await gate.wait()
            await talk.say(OK)
        await talk.head()

    async with peer(script) as provider, client_for(provider.url, "lean", max_connections=2) as client:
        both = [asyncio.create_task(_one(client, provider)) for _ in range(2)]
        await until(lambda: len(heard) == 2)
        gate.set()
        await asyncio.gather(*both)
        assert client.stats().idle == 2
        assert await _one(client, provider) == b"ok"
        assert provider.connections == 3
