import asyncio
from dataclasses import dataclass, field

import pytest

from proxy.errors import UpstreamFailed
from proxy.exchange import Candidate, RoutePlan
from proxy.routing.dispatch import dispatch

PLAN = RoutePlan((Candidate("openai", "gpt-4o"),), "only_upstream")


@dataclass
class Reply:
    status: int = 200
    reason: str = "OK"
    headers: tuple = field(default=((b"X-Request-Id", b"req_1"),))


async def test_dispatch_when_the_provider_answers_then_the_attempt_knows_the_head():
    attempts = []

    async def send(attempt):
        assert attempts == [attempt], "the attempt is on record before anything is sent"
        return Reply()

    reply = await dispatch(PLAN, attempts, send)
    assert reply.status == attempts[0].status == 200
    assert attempts[0].request_id == "req_1"
    assert attempts[0].headers_at >= attempts[0].started
    assert attempts[0].ended is None


async def test_dispatch_when_the_provider_names_no_request_then_there_is_none():
    attempts = []

    async def send(_attempt):
        return Reply(headers=())

    await dispatch(PLAN, attempts, send)
    assert attempts[0].request_id is None


async def test_dispatch_when_the_provider_fails_then_the_attempt_ends_with_the_error_and_is_not_repeated():
    attempts = []

    async def send(_attempt):
        raise UpstreamFailed("gone", sent=True)

    with pytest.raises(UpstreamFailed):
        await dispatch(PLAN, attempts, send)
    assert len(attempts) == 1
    assert attempts[0].error.message == "gone"
    assert attempts[0].ended is not None


async def test_dispatch_when_cancelled_then_the_attempt_stays_on_record():
    attempts = []
    task = asyncio.create_task(dispatch(PLAN, attempts, lambda _attempt: asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts) == 1
