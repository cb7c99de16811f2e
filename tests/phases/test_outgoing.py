"""What further attempts may cost: reserved before they are made, on a real ledger, and never beyond the limit."""

import asyncio
import json
from dataclasses import replace

import pytest

from proxy.config.schema import Config, Limits, Prices
from proxy.errors import QuotaExceeded
from proxy.exchange import Attempt, Candidate, Charge, Exchange, Inbound, RoutePlan, Usage
from proxy.nouns.holds import Bound
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.intake import ByteBudget
from proxy.phases.outgoing import Outgoing
from proxy.phases.settling import Settling
from proxy.trace import record
from proxy.trace.record import trace_id
from proxy.upstream.pricing import load as load_prices
from tests.quota.replica import ALICE, replicas

PATH = "/v1/chat/completions"
OPERATION = match("POST", PATH, False)
TABLE = load_prices(None, Prices())
BODY = b'{"model":"auto","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}'


class Scene:
    """One request on its way out, in front of a provider that keeps what it is sent."""

    def __init__(self, replica, *candidates, body=BODY):
        self.config = Config(quota=replica.settings)
        self.provider, self.prices, self.quotas, self.journal = self, TABLE, replica.quotas, self
        self.secrets, self.tracer = (), None
        self.budget = ByteBudget(1 << 20)
        self.sent, self.intents, self.finals = [], [], []
        inbound = Inbound("POST", PATH, PATH, (), {}, OPERATION, None, len(body), True)
        self.x = Exchange(trace_id(1_780_000_000_000), 1_780_000_000_000, 0.0, inbound, principal=ALICE)
        self.x.request = parse_json(body, OPERATION, limits=Limits(), force_stream_usage=True)
        self.x.plan = RoutePlan(candidates, "test", is_managed=True)
        self.settling = Settling(self.x, self, None)
        self.outgoing = Outgoing(self.x, self, self.settling)
        self.outgoing.body = body

    def append_intent(self, _key, body):
        self.intents.append(json.loads(body))

    def append_final(self, _key, body):
        self.finals.append(json.loads(body))

    def recorded(self):
        pass

    async def send(self, attempt, _inbound, body):
        self.sent.append(body)

    def attempt(self, **facts) -> Attempt:
        made = Attempt(len(self.x.attempts), self.x.plan.candidates[len(self.x.attempts)], 0.0, **facts)
        self.x.attempts.append(made)
        return made

    @property
    def held(self):
        return self.settling.reservation

    @property
    def reserved(self) -> tuple[int, int]:
        return sum(p.tokens for p in self.held.parts), sum(p.nanos for p in self.held.parts)


CHEAP, DEAR = Candidate("a", "gpt-5-nano"), Candidate("b", "gpt-5")


@pytest.fixture
async def replica(database_url, tmp_path):
    limits = {"default_tokens_daily": 10_000, "default_cost_daily": "0.01", "max_wait_ms": 100}
    async with replicas(database_url, tmp_path, **limits) as (made,):
        yield made


async def test_first_attempt_when_reserved_then_at_the_price_of_its_candidate(replica):
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    tokens, nanos = scene.reserved
    assert (scene.held.bound.output_tokens, tokens) == (100, scene.held.bound.tokens)
    assert nanos == scene.held.bound.cost_nanos < 100_000


async def test_further_attempt_when_the_first_cost_nothing_then_the_difference_is_reserved_and_on_record(replica):
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    before = scene.reserved[1]
    scene.attempt(sent=True, status=500, failure="server_error")
    assert await scene.outgoing.prepare(scene.attempt())
    assert scene.reserved[1] == scene.held.bound.cost_nanos == scene.held.total.cost_nanos > before
    (intent,) = scene.intents
    assert intent["candidate"] == ["b", "gpt-5"]
    assert intent["reserved"][2] == sum(nanos for _, _, nanos in intent["quota"]["leases"])


async def test_further_attempt_when_it_is_cheaper_then_its_record_would_charge_no_more_than_it_may_cost(replica):
    scene = Scene(replica, DEAR, CHEAP)
    await scene.outgoing.reserve()
    before = scene.reserved
    scene.attempt(sent=True, status=500, failure="server_error")
    assert await scene.outgoing.prepare(scene.attempt())
    assert scene.reserved == before
    intent = scene.intents[-1]
    ((_, tokens, nanos),) = intent["quota"]["leases"]
    assert intent["reserved"] == [tokens - 100, 100, nanos]
    assert nanos == scene.held.total.cost_nanos < before[1]


async def test_first_attempt_when_it_goes_to_a_dearer_candidate_then_that_one_is_reserved_and_on_record(replica):
    scene = Scene(replica, DEAR, CHEAP)
    scene.x.plan.candidates = (CHEAP, DEAR)
    await scene.outgoing.reserve()
    before = scene.reserved[1]
    scene.x.attempts.append(Attempt(0, DEAR, 0.0))
    assert await scene.outgoing.prepare(scene.x.attempts[0])
    assert scene.reserved[1] == scene.held.bound.cost_nanos == scene.held.total.cost_nanos > before
    (intent,) = scene.intents
    assert intent["candidate"] == ["b", "gpt-5"]
    assert scene.held.bound.cost_nanos == scene.outgoing.cost_of(DEAR, scene.x.request)


async def test_further_attempt_when_the_first_may_have_been_paid_then_both_are_reserved(replica):
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    first = scene.held.bound
    scene.attempt(sent=True, failure="ambiguous")
    assert await scene.outgoing.prepare(scene.attempt())
    second = scene.held.bound
    assert scene.reserved == (first.tokens + second.tokens, first.cost_nanos + second.cost_nanos)
    assert (scene.held.total.tokens, scene.held.total.cost_nanos) == scene.reserved
    scene.x.attempts[1].meter.usage = Usage(10, 20)
    scene.x.attempts[1].meter.response_model = "gpt-5"
    charges = [scene.settling.charge_of(attempt, scene.held.bound) for attempt in scene.x.attempts]
    assert (charges[0].usage_source, charges[0].cost_nanos) == ("estimated", first.cost_nanos)
    assert charges[1].usage_source == "provider"


async def test_further_attempt_when_nothing_is_left_for_it_then_it_may_not_be_made(replica):
    big = BODY.replace(b"100", b"900")
    scene = Scene(replica, CHEAP, Candidate("b", "gpt-5-pro"), body=big)
    await scene.outgoing.reserve()
    before = (scene.reserved, scene.held.bound)
    scene.attempt(sent=True, status=503, failure="overloaded")
    assert not await scene.outgoing.prepare(scene.attempt())
    assert (scene.reserved, scene.held.bound, scene.intents) == (*before, [])


async def test_attempts_of_many_requests_never_reserve_more_than_the_limit(replica):
    granted = []
    for _ in range(40):
        scene = Scene(replica, CHEAP, DEAR)
        try:
            await scene.outgoing.reserve()
        except Exception:
            break
        scene.attempt(sent=True, failure="ambiguous")
        await scene.outgoing.prepare(scene.attempt())
        granted.append(scene)
    assert sum(scene.reserved[1] for scene in granted) <= 10_000_000
    assert sum(scene.reserved[0] for scene in granted) <= 10_000
    assert len(granted) > 5


async def test_maximum_when_a_request_may_cost_only_so_much_then_it_is_written_into_the_body(replica):
    lowered = Bound(50, 0, 77, 1, 10, is_capped=True, can_be_capped=True)
    open_end = b'{"model":"auto","messages":[]}'
    scene = Scene(replica, replace(CHEAP, bound=lowered, is_lowered=True), DEAR, body=open_end)
    await scene.outgoing.reserve()
    assert scene.reserved[0] == 127
    await scene.outgoing.send(scene.attempt())
    assert json.loads(scene.sent[0])["max_tokens"] == 77
    await scene.outgoing.prepare(scene.attempt())
    await scene.outgoing.send(scene.x.attempts[1])
    assert scene.sent[1] is open_end


async def test_quotas_when_switched_off_then_every_attempt_may_be_made(replica):
    replica.settings = replica.settings.model_copy(update={"enabled": False})
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    scene.attempt(sent=True, failure="ambiguous")
    assert await scene.outgoing.prepare(scene.attempt())
    (intent,) = scene.intents
    orphan = json.loads(
        record.interrupted(json.dumps(intent).encode(), lambda *_: Charge(Usage(5), "estimated", 7, True))
    )
    first = scene.settling.charge_of(scene.x.attempts[0], None)
    assert first.cost_nanos > 0
    assert orphan["total_cost"] == f"{(first.cost_nanos + 7) / 1e9:.9f}", "who dies in the second call has made two"


async def test_maximum_when_lowered_for_the_quota_then_a_review_in_between_does_not_lower_it_further(replica):
    open_end = b'{"model":"auto","messages":[]}'
    scene = Scene(replica, CHEAP, CHEAP, CHEAP, body=open_end)
    await scene.outgoing.reserve()
    assert scene.held.is_lowered
    lowered = scene.held.bound.output_tokens
    for one in range(2):
        scene.attempt(sent=True).meter.usage = Usage(1, 1)
        following = scene.attempt()
        following.request = (
            scene.x.request if one else parse_json(BODY, OPERATION, limits=Limits(), force_stream_usage=True)
        )
        assert await scene.outgoing.prepare(following)
        assert scene.held.bound.output_tokens == (lowered if one else 100)
        scene.x.attempts.pop()


async def test_further_attempt_when_all_together_might_cost_too_much_then_it_may_not_be_made(replica):
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    first, second = scene.held.bound.cost_nanos, scene.outgoing.cost_of(DEAR, scene.x.request)
    scene.attempt(sent=True, failure="ambiguous")
    following = scene.attempt()
    scene.x.plan.max_cost_nanos = first + second - 1
    assert not await scene.outgoing.prepare(following)
    scene.x.plan.max_cost_nanos = first + second
    assert await scene.outgoing.prepare(following)


@pytest.mark.parametrize("enabled", [True, False], ids=["quotas", "no quotas"])
async def test_record_when_it_cannot_be_made_then_a_plain_one_has_what_all_attempts_cost(replica, enabled):
    replica.settings = replica.settings.model_copy(update={"enabled": enabled})
    scene = Scene(replica, CHEAP, DEAR)
    await scene.outgoing.reserve()
    scene.settling.write_intent()
    scene.attempt(sent=True, failure="ambiguous")
    assert await scene.outgoing.prepare(scene.attempt())
    for attempt, usage in zip(scene.x.attempts, (Usage(10, 20), Usage(30, 40)), strict=True):
        attempt.meter.usage = usage
    scene.x.judgement = object()  # nothing that could be recorded
    scene.settling.seal()
    (final,) = scene.finals
    nanos = sum(charge.cost_nanos for charge in scene.x.charges)
    assert (final["input_tokens"], final["output_tokens"], final["outcome"]) == (40, 60, "internal_error")
    assert final["total_cost"] == f"{nanos / 1e9:.9f}"
    assert not enabled or sum(share for _, _, share in final["quota"]["leases"]) == nanos


MANY = json.dumps({"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}] * 30_000})
LONG = json.dumps({"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "hello " * 90_000}]})


@pytest.mark.parametrize(("body", "waits"), [(MANY, True), (LONG, False)], ids=["many elements", "a long text"])
async def test_bound_when_another_body_is_decoded_then_one_of_many_elements_waits_for_its_turn(replica, body, waits):
    scene = Scene(replica, CHEAP, DEAR, body=body.encode())
    scene.x.request = replace(scene.x.request, document=None)
    async with scene.budget.decoding:
        reserving = asyncio.ensure_future(scene.outgoing.reserve())
        _, pending = await asyncio.wait({reserving}, timeout=0.3 if waits else 10)
        assert bool(pending) is waits
    with pytest.raises(QuotaExceeded, match="more than the whole limit"):
        await reserving


async def test_maximum_when_the_body_is_large_then_it_is_written_in_a_thread_once_it_is_its_turn(replica):
    lowered = Bound(50, 0, 77, 1, 10, is_capped=True, can_be_capped=True)
    large = MANY.encode()
    scene = Scene(replica, replace(CHEAP, bound=lowered, is_lowered=True), body=large)
    scene.x.request = replace(scene.x.request, document=None)
    await scene.outgoing.reserve()
    async with scene.budget.decoding:
        sending = asyncio.ensure_future(scene.outgoing.send(scene.attempt()))
        _, pending = await asyncio.wait({sending}, timeout=0.1)
        assert pending
    await sending
    assert json.loads(scene.sent[0]) == {**json.loads(large), "max_tokens": 77}
