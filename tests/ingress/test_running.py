"""What a running request holds, and which one is ended where memory is short."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from proxy.errors import Overloaded
from proxy.exchange import Attempt, Candidate, Capture, Delivery, Exchange, Inbound, Operation, ParsedRequest
from proxy.ingress.running import Running
from tests.ingress.test_handler import Pipeline, code, data_port
from tests.ingress.wire import request, until

MIB = 1 << 20
FULL = Overloaded("Sidegate is short of memory.", code="overloaded_memory", retry_after_s=1.0)


@dataclass
class Holding(Pipeline):
    """Every request is held with a body as large as its path says, in MiB; `/v1/unread` writes what nobody reads."""

    told: list[object] = field(default_factory=list)

    async def handle(self, x, body, downstream):
        self.seen.append(x)
        try:
            if x.inbound.path == "/v1/unread":
                await downstream.start(200, "OK", (), None)
                while True:
                    await downstream.write(bytes(8 * MIB))
            x.request = parsed(int(x.inbound.path.rpartition("/")[2]) * MIB)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.told.append((x.inbound.path, downstream.ended_by))
            if downstream.ended_by is None:
                raise
            if x.delivery.committed_at is None:
                await downstream.send(503, "", (), b'{"error":{"message":"","type":"","param":null,"code":"full"}}')


def parsed(size: int) -> ParsedRequest:
    return ParsedRequest(bytes(size), None, None, False, False, lambda: 0, None, None, (), size)


@contextlib.asynccontextmanager
async def opened(*paths):
    """Requests that run, in order of `paths`, and the ingress that they came through."""
    pipeline = Holding()
    async with data_port(pipeline) as (server, ingress, _), contextlib.AsyncExitStack() as stack:
        clients = []
        for number, path in enumerate(paths, 1):
            client = await stack.enter_async_context(server.client())
            await client.say(request(path))
            await until(lambda number=number: len(pipeline.seen) == number)
            clients.append(client)
        yield ingress, pipeline, *clients


@pytest.mark.parametrize("paths", [("/v1/3",), ("/v1/3", "/v1/1", "/v1/2")], ids=len)
async def test_largest_when_ended_then_its_client_is_told_and_the_others_go_on(paths: tuple[str, ...]) -> None:
    async with opened(*paths) as (ingress, pipeline, largest, *_):
        assert ingress.end_largest(FULL)
        answer = await largest.answer()
        assert (answer.status, code(answer), answer.value(b"connection")) == (503, "full", b"close")
        await until(lambda: ingress.running == len(paths) - 1)
        assert pipeline.told == [("/v1/3", FULL)]


async def test_largest_when_it_is_ended_already_or_holds_little_then_nothing_is_ended() -> None:
    async with opened("/v1/0", "/v1/2") as (ingress, _, _, large):
        assert ingress.end_largest(FULL)
        assert not ingress.end_largest(FULL)
        assert (await large.answer()).status == 503
        await until(lambda: ingress.running == 1)
        assert not ingress.end_largest(FULL)
    assert not ingress.end_largest(FULL)


async def test_largest_when_its_client_does_not_read_then_nothing_waits_for_it() -> None:
    async with opened("/v1/unread") as (ingress, pipeline, _):
        await until(lambda: ingress.end_largest(FULL))
        await until(lambda: ingress.running == 0)
    assert pipeline.told == [("/v1/unread", FULL)]


class Unsent:
    unsent_bytes = 5


@pytest.mark.parametrize(
    ("events", "delivered", "expected"), [(0, 0, 1135), (0, 30, 1105), (0, 400, 1035), (7, 0, 1035)]
)
def test_held_when_bodies_are_on_their_way_then_what_is_not_gone_counts(events, delivered, expected) -> None:
    operation = Operation("chat.completions.create", "chat", "json", "chat", billable=True)
    x = Exchange("id", 0, 0.0, Inbound("POST", "/v1/x", "/v1/x", (), {}, operation, None, None, True))
    assert Running(x, Unsent(), None).held_bytes == 5
    x.request, x.delivery = parsed(1000), Delivery(bytes=delivered)
    x.attempts.append(attempt := Attempt(0, Candidate("u", "m"), 0.0))
    attempt.meter.response_bytes, attempt.meter.events = 100, events
    x.capture = Capture(1000)
    x.capture.add(bytes(30))
    assert Running(x, Unsent(), None).held_bytes == expected
