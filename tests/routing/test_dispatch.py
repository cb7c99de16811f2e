import asyncio
import random
import time
from dataclasses import dataclass, field

import pytest

from proxy.config.routing import Breaker, Routing
from proxy.config.schema import UpstreamEntry
from proxy.errors import NoUpstreamAvailable, Overloaded, ProxyError, QuotaExceeded, UpstreamFailed
from proxy.exchange import Candidate, RoutePlan, Usage, first_values
from proxy.routing.dispatch import Dispatcher, ask_once
from proxy.routing.health import Health
from tests.relay.peers import JSON, STREAM
from tests.relay.peers import Reply as Scripted

PLAN = RoutePlan((Candidate("openai", "gpt-4o"),), "only_upstream")


@dataclass
class Reply:
    status: int = 200
    reason: str = "OK"
    headers: tuple = field(default=((b"X-Request-Id", b"req_1"),))

    @property
    def fields(self):
        return first_values(self.headers)


async def test_dispatch_when_the_provider_answers_then_the_attempt_knows_the_head():
    attempts = []

    async def send(attempt):
        assert attempts == [attempt], "the attempt is on record before anything is sent"
        return Reply()

    reply = await ask_once(PLAN, attempts, send)
    assert reply.status == attempts[0].status == 200
    assert attempts[0].request_id == "req_1"
    assert attempts[0].headers_at >= attempts[0].started
    assert attempts[0].ended is None


async def test_dispatch_when_the_provider_names_no_request_then_there_is_none():
    attempts = []

    async def send(_attempt):
        return Reply(headers=())

    await ask_once(PLAN, attempts, send)
    assert attempts[0].request_id is None


async def test_dispatch_when_the_provider_names_it_at_length_then_the_name_is_cut():
    attempts = []

    async def send(_attempt):
        return Reply(headers=((b"x-request-id", b"r" * 5000),))

    await ask_once(PLAN, attempts, send)
    assert attempts[0].request_id == "r" * 256


async def test_dispatch_when_the_provider_fails_then_the_attempt_ends_with_the_error_and_is_not_repeated():
    attempts = []

    async def send(_attempt):
        raise UpstreamFailed("gone", sent=True)

    with pytest.raises(UpstreamFailed):
        await ask_once(PLAN, attempts, send)
    assert len(attempts) == 1
    assert attempts[0].error.message == "gone"
    assert attempts[0].ended is not None


async def test_dispatch_when_cancelled_then_the_attempt_stays_on_record():
    attempts = []
    task = asyncio.create_task(ask_once(PLAN, attempts, lambda _attempt: asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts) == 1


# Managed plans: several places, scripted.

CUT = UpstreamFailed("cut", sent=True)
REFUSED = UpstreamFailed("refused", sent=False)
GOOD_EVENT = b'data: {"choices":[]}\n\n'
ERROR_EVENT = b'data: {"error":{"code":"server_error"}}\n\n'


def answer(status=200, *pieces, headers=(JSON,)) -> Scripted:
    return Scripted(pieces, headers, status=status)


def stream(*pieces) -> Scripted:
    return Scripted(pieces, (STREAM,))


class World:
    """Places with scripts: each attempt at an upstream takes its next step, a reply or an error."""

    def __init__(self, *names, credentials=1, prepared=True, **settings):
        keys = [{"api_key": f"key-{n}"} for n in range(credentials)]
        self.upstreams = [UpstreamEntry(name=name, credentials=keys) for name in names]
        self.health = Health(self.upstreams, Breaker(), lambda: 0.5)
        self.dispatcher = Dispatcher(Routing(**settings), self.health)
        self.plan = RoutePlan(tuple(Candidate(name, f"m-{name}") for name in names), "test", is_managed=True)
        self.prepared = prepared
        self.too_expensive = ()
        self.paid_for = []
        self.attempts = []
        self.steps = {}
        self.asked = []

    async def ask(self, started=None, **steps):
        self.attempts = []
        self.steps = {name: list(script) for name, script in steps.items()}
        started = time.monotonic() if started is None else started
        return await self.dispatcher.dispatch(self.plan, self.attempts, self._send, self._prepare, started)

    async def _send(self, attempt):
        self.asked.append((attempt.candidate.upstream, attempt.credential))
        step = self.steps[attempt.candidate.upstream].pop(0)
        if isinstance(step, Exception):
            attempt.sent = getattr(step, "sent", False)
            raise step
        attempt.sent = True
        return step

    async def _prepare(self, attempt):
        assert self.attempts[-1] is attempt
        self.paid_for.append(attempt.candidate.upstream)
        return self.prepared and attempt.candidate.upstream not in self.too_expensive

    @property
    def way(self) -> list[tuple[str, str, str | None]]:
        return [(a.candidate.upstream, a.why, a.failure) for a in self.attempts]

    def under_way(self) -> int:
        return sum(one["inFlight"] for one in self.health.describe(0))


async def test_first_attempt_when_it_cannot_go_to_the_first_candidate_then_it_is_paid_for_before_it_is_made():
    world = World("a", "b")
    await world.ask(a=[answer(200, b"{}")])
    assert world.paid_for == []
    world.health.take("a", (), time.monotonic(), "m-a").judge("refused", time.monotonic())
    assert (await world.ask(b=[answer(200, b"{}")])).status == 200
    assert (world.way, world.paid_for) == ([("b", "first", None)], ["b"])
    world.prepared = False
    with pytest.raises(QuotaExceeded):
        await world.ask(b=[])
    assert (world.attempts, world.asked[2:]) == ([], [])


FALLS_BACK = {
    "no connection": (REFUSED, "unsent"),
    "none free": (NoUpstreamAvailable("busy", code="upstream_pool_timeout"), "busy"),
    "no descriptor": (Overloaded("none", code="out_of_descriptors"), "busy"),
    "429": (answer(429), "rate_limited"),
    "500": (answer(500), "server_error"),
    "502": (answer(502), "gateway"),
    "503": (answer(503), "overloaded"),
    "401": (answer(401), "refused"),
    "404": (answer(404), "not_found"),
    "stream that begins with an error": (stream(ERROR_EVENT), "stream_error"),
    "stream without an event": (stream(), "stream_error"),
}


@pytest.mark.parametrize("case", FALLS_BACK.values(), ids=FALLS_BACK.keys())
async def test_failure_when_another_candidate_is_left_then_it_answers_and_the_first_is_let_go(case):
    step, kind = case
    world = World("a", "b")
    reply = await world.ask(a=[step], b=[answer(200, b"{}")])
    assert (reply.status, await reply.read()) == (200, b"{}")
    assert world.way == [("a", "first", kind), ("b", "fallback", None)]
    assert world.attempts[0].ended is not None
    assert isinstance(step, Exception) or step.closed
    reply.close()
    assert world.under_way() == 0


async def test_failure_when_it_tells_figures_then_its_attempt_knows_them_before_another_one_is_paid_for():
    figures = b'{"error":{"code":"x"},"usage":{"prompt_tokens":7,"completion_tokens":5}}'
    for failing in (answer(503, figures), stream(b"data: " + figures + b"\n\n")):
        world = World("a", "b")
        await world.ask(a=[failing], b=[answer(200, b"{}")])
        assert [attempt.used.usage for attempt in world.attempts] == [Usage(7, 5), None]
    world = World("a")
    reply = await world.ask(a=[answer(503, figures)])
    assert (await reply.read(), world.attempts[0].used.usage) == (figures, Usage(7, 5))


@pytest.mark.parametrize("status", [200, 201, 301, 400, 409, 413, 422])
async def test_answer_when_it_is_about_the_request_then_it_is_the_answer(status):
    world = World("a", "b")
    reply = await world.ask(a=[answer(status)], b=[])
    assert (reply.status, world.way) == (status, [("a", "first", None)])


async def test_failure_when_every_candidate_fails_then_the_last_answer_passes_as_it_is():
    world = World("a", "b")
    last = answer(503, b"busy")
    reply = await world.ask(a=[REFUSED], b=[last])
    assert (reply.status, await reply.read()) == (503, b"busy")
    assert world.way == [("a", "first", "unsent"), ("b", "fallback", None)]
    reply.close()
    assert last.closed
    assert world.under_way() == 0


async def test_failure_when_every_candidate_fails_without_an_answer_then_the_last_error_is_raised():
    world = World("a", "b")
    with pytest.raises(UpstreamFailed):
        await world.ask(a=[answer(500)], b=[CUT])
    assert world.way == [("a", "first", "server_error"), ("b", "fallback", "ambiguous")]
    assert world.under_way() == 0


async def test_ambiguous_failure_is_the_end_unless_configured():
    world = World("a", "b")
    with pytest.raises(UpstreamFailed):
        await world.ask(a=[CUT], b=[answer()])
    assert world.asked == [("a", 0)]
    world = World("a", "b", retry_ambiguous=True)
    assert (await world.ask(a=[CUT], b=[answer()])).status == 200
    world = World("a", retry_ambiguous=True)
    assert (await world.ask(a=[CUT, answer()])).status == 200
    assert [why for _, why, _ in world.way] == ["first", "retry"]


@pytest.mark.parametrize(
    ("step", "repeated"),
    [
        (REFUSED, True),
        (answer(429, headers=((b"retry-after-ms", b"1"),)), True),
        (answer(503, headers=((b"retry-after", b"0"),)), True),
        (answer(429, headers=((b"retry-after", b"3"),)), False),
        (answer(503), False),
        (answer(500), False),
    ],
)
async def test_single_place_is_asked_again_only_where_that_is_safe_and_soon(step, repeated):
    world = World("a")
    reply = await world.ask(a=[step, answer(200)]) if repeated else await world.ask(a=[step])
    assert reply.status == (200 if repeated else step.status)
    assert len(world.attempts) == 1 + repeated


@pytest.mark.parametrize("error", [NoUpstreamAvailable("busy"), Overloaded("none")], ids=["none-free", "no-descriptor"])
async def test_limit_of_our_own_when_it_is_met_again_and_again_then_the_breaker_stays_closed(error):
    world = World("a")
    for _ in range(30):
        with pytest.raises(type(error)):
            await world.ask(a=[error])
    assert world.way == [("a", "first", "busy")]
    assert [one["state"] for one in world.health.describe(time.monotonic())] == ["closed"]


async def test_attempts_never_exceed_their_number():
    world = World("a", "b", "c", "d", max_attempts=3)
    reply = await world.ask(a=[answer(500)], b=[answer(500)], c=[answer(500)], d=[answer()])
    assert (reply.status, [name for name, _ in world.asked]) == (500, ["a", "b", "c"])


async def test_deadline_when_over_then_no_further_attempt():
    world = World("a", "b", deadline_s=1)
    reply = await world.ask(time.monotonic() - 2, a=[answer(500)], b=[answer()])
    assert (reply.status, world.asked) == (500, [("a", 0)])


async def test_attempt_that_cannot_be_paid_is_not_made_and_the_answer_before_it_passes():
    world = World("a", "b", prepared=False)
    refusal = answer(500, b"no")
    reply = await world.ask(a=[refusal], b=[])
    assert (reply.status, await reply.read(), world.way) == (500, b"no", [("a", "first", None)])
    reply.close()
    assert world.under_way() == 0


@pytest.mark.parametrize("why", ["first", "fallback"])
async def test_attempt_that_cannot_be_paid_when_a_cheaper_candidate_is_left_then_that_one_is_asked(why):
    world = World("a", "b", "c", "d")
    world.too_expensive = ("b", "c")
    if why == "first":
        world.health.take("a", (), time.monotonic(), "m-a").judge("refused", time.monotonic())
        before = world.under_way()
    else:
        before = 0
    reply = await world.ask(a=[answer(500)], d=[answer()])
    assert (reply.status, world.paid_for) == (200, ["b", "c", "d"])
    assert world.way[-1] == ("d", why, None)
    assert [attempt.index for attempt in world.attempts] == list(range(len(world.attempts)))
    reply.close()
    assert world.under_way() == before


async def test_attempt_that_cannot_be_paid_when_it_was_a_retry_then_nothing_else_is_tried():
    world = World("a", prepared=False)
    reply = await world.ask(a=[answer(503, headers=((b"retry-after", b"0"),))])
    assert (reply.status, world.way, world.paid_for) == (503, [("a", "first", None)], ["a"])


async def test_credentials_when_one_is_limited_then_the_next_is_used_and_the_first_left_alone():
    world = World("a", credentials=2)
    limited = answer(429, headers=((b"retry-after", b"30"),))
    reply = await world.ask(a=[limited, answer()])
    assert (reply.status, [number for _, number in world.asked]) == (200, [0, 1])
    for _ in range(3):
        await world.ask(a=[answer()])
    assert [number for _, number in world.asked[2:]] == [1, 1, 1]


async def test_breaker_when_a_provider_keeps_failing_then_it_is_not_asked_any_more():
    world = World("a", "b")
    for _ in range(8):
        reply = await world.ask(a=[REFUSED], b=[answer()])
        reply.close()
    assert [name for name, _ in world.asked].count("a") == 5


async def test_breaker_when_all_are_open_then_503_says_when_to_come_again():
    world = World("a")
    for _ in range(3):
        with pytest.raises(UpstreamFailed):
            await world.ask(a=[REFUSED, REFUSED])
    with pytest.raises(NoUpstreamAvailable) as caught:
        await world.ask(a=[])
    assert 0 < caught.value.retry_after_s <= 6
    assert world.attempts == []


async def test_refused_credential_when_it_is_all_there_is_then_the_client_sees_why():
    world = World("a")
    for _ in range(3):
        reply = await world.ask(a=[answer(401, b"bad key")])
        assert (reply.status, await reply.read()) == (401, b"bad key")
        reply.close()
    assert len(world.asked) == 3


async def test_stream_when_it_began_well_then_a_later_failure_is_the_clients_and_counts_half():
    world = World("a", "b")
    reply = await world.ask(a=[stream(GOOD_EVENT, CUT)], b=[answer()])
    assert await reply.read() == GOOD_EVENT
    with pytest.raises(UpstreamFailed):
        await reply.read()
    reply.close()
    (first, _) = world.health.describe(0)
    assert (first["outcomes"], first["inFlight"], len(world.asked)) == ({"half_failure": 1}, 0, 1)


async def test_answer_when_it_ended_then_its_place_is_free_and_worked():
    world = World("a", "b")
    reply = await world.ask(a=[answer(200, b"{}")], b=[])
    assert world.under_way() == 1
    reply.close()
    reply.close()
    (first, _) = world.health.describe(0)
    assert (first["outcomes"], first["inFlight"]) == ({"success": 1}, 0)


async def test_request_when_cancelled_then_nothing_is_held():
    world = World("a", "b")
    hanging = asyncio.Event()

    async def send(attempt):
        await hanging.wait()

    world._send = send
    task = asyncio.create_task(world.ask(a=[], b=[]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (len(world.attempts), world.under_way()) == (1, 0)


async def test_budget_when_a_provider_stays_busy_then_retries_end_and_requests_do_not():
    world = World("a")
    busy = ((b"retry-after-ms", b"0"),)
    for _ in range(12):
        reply = await world.ask(a=[answer(503, headers=busy), answer(503, headers=busy)])
        reply.close()
        world.health = Health(world.upstreams, Breaker(), lambda: 0.5)
        world.dispatcher._health = world.health
    assert len(world.asked) == 12 + 5


async def test_plan_that_is_not_managed_passes_whatever_the_provider_says():
    world = World("a", "b")
    world.plan.is_managed = False
    for step in (answer(429), answer(503, headers=((b"retry-after", b"0"),)), stream(ERROR_EVENT)):
        assert await world.ask(a=[step]) is step
        assert world.way == [("a", "first", None)]


async def test_limit_of_a_model_when_told_then_another_model_answers_at_the_same_place():
    world = World("a")
    world.plan = RoutePlan((Candidate("a", "m1"), Candidate("a", "m2")), "test", is_managed=True)
    limited = answer(429, headers=((b"x-ratelimit-remaining-requests", b"0"), (b"retry-after", b"30")))
    reply = await world.ask(a=[limited, answer(200, b"{}")])
    assert reply.status == 200
    assert [(attempt.candidate.model, attempt.failure) for attempt in world.attempts] == [
        ("m1", "rate_limited"),
        ("m2", None),
    ]
    assert (await world.ask(a=[answer(200, b"{}")])).status == 200
    assert world.attempts[0].candidate.model == "m2", "the first is left alone"


async def test_client_when_it_leaves_while_a_retry_waits_then_nothing_is_held():
    world, busy = World("a"), answer(503, headers=((b"retry-after", b"2"),))
    task = asyncio.create_task(world.ask(a=[busy]))
    async with asyncio.timeout(1):
        while not world.way or world.way[0][2] is None:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (world.under_way(), busy.closed, len(world.attempts)) == (0, True, 1)


async def test_retry_when_the_breaker_has_opened_then_it_is_not_made():
    world = World("a")
    for _ in range(4):
        permit = world.health.take("a", (), 0)
        permit.judge("failure", time.monotonic())
        permit.release()
    with pytest.raises(UpstreamFailed):
        await world.ask(a=[REFUSED, answer()])
    assert (world.way, world.under_way()) == ([("a", "first", "unsent")], 0)


CHANCES = [
    *[lambda: answer(200, b"{}")] * 4, lambda: stream(GOOD_EVENT, CUT), lambda: stream(ERROR_EVENT), lambda: REFUSED,
    lambda: CUT, *[lambda status=status: answer(status) for status in (400, 401, 404, 429, 500, 502, 503)],
    *[lambda status=status: answer(status, headers=((b"retry-after", b"0"),)) for status in (429, 503)],
]  # fmt: skip


class Crowd:
    """Many requests at once at places that fail at random; every law is looked at while an attempt begins."""

    def __init__(self, draw):
        keys = [{"api_key": f"key-{n}"} for n in range(draw.choice([1, 1, 2]))]
        self.names = "abc"[: draw.randrange(1, 4)]
        breaker = Breaker(failures=draw.choice([1, 2, 5]), open_s=0.02, open_max_s=0.04, refused_s=0.1)
        self.settings = Routing(max_attempts=draw.choice([1, 2, 3, 5]), retry_ambiguous=draw.random() < 0.3)
        upstreams = [UpstreamEntry(name=name, credentials=keys) for name in self.names]
        self.health = Health(upstreams, breaker, draw.random)
        self.dispatcher = Dispatcher(self.settings, self.health)
        self.probes = set()
        self.draw = draw

    async def ask(self):
        draw, attempts, steps = self.draw, [], []
        chosen = [Candidate(draw.choice(self.names), f"m{draw.randrange(3)}") for _ in range(draw.randrange(1, 5))]

        async def send(attempt):
            place = (attempt.candidate.upstream, attempt.credential)
            breaker = self.health._of[place[0]][place[1]].breaker
            is_probe = breaker._opened > 0
            assert not is_probe or (place not in self.probes and time.monotonic() >= breaker._until), "one probe"
            assert CUT not in steps or self.settings.retry_ambiguous, "nobody knows what became of the last one"
            assert not any(getattr(step, "is_answer", False) for step in steps), "it had an answer"
            if is_probe:
                self.probes.add(place)
            try:
                await asyncio.sleep(draw.random() * 0.003)
            finally:
                self.probes -= {place} if is_probe else set()
            steps.append(step := draw.choice(CHANCES)())
            if isinstance(step, Exception):
                attempt.sent = step.sent
                raise step
            step.is_answer = step.status in (200, 400) and step.headers[0] is JSON
            return step

        async def prepare(_attempt):
            return draw.random() < 0.9

        try:
            async with asyncio.timeout(draw.choice([0.001, 0.005, 9, 9])):
                plan = RoutePlan(tuple(chosen), "test", is_managed=True)
                reply = await self.dispatcher.dispatch(plan, attempts, send, prepare, time.monotonic())
                try:
                    while await reply.read():
                        await asyncio.sleep(0)
                finally:
                    reply.close()
        except (ProxyError, TimeoutError):
            pass
        assert len(attempts) <= self.settings.max_attempts
        assert sum(attempt.why == "retry" for attempt in attempts) <= 1


@pytest.mark.parametrize("seed", range(8))
async def test_crowd_when_providers_fail_at_random_then_every_law_holds_and_nothing_is_held(seed):
    crowd = Crowd(random.Random(seed))
    for _ in range(8):
        await asyncio.gather(*[crowd.ask() for _ in range(crowd.draw.randrange(1, 8))])
    assert not any(one["inFlight"] for one in crowd.health.describe(time.monotonic()))
    assert not any(one.breaker._probing for row in crowd.health._of.values() for one in row)
