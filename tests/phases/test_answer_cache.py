"""Which answers are given from what is kept, and which are kept."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.cache.answers import AnswerCache
from proxy.config.cache import Cache
from proxy.config.project import FeatureSettings
from proxy.config.schema import Limits
from proxy.errors import ClientDisconnected
from proxy.exchange import Attempt, Exchange, Inbound, Principal, Usage, first_values
from proxy.nouns.candidates import Candidate, Judgement, RoutePlan
from proxy.nouns.findings import Finding, Sighting, Unscanned, Verdict
from proxy.openai.operations import match
from proxy.openai.request import parse_json
from proxy.phases.answer_cache import CacheLookup
from proxy.phases.intake import ByteBudget

CHAT = {"model": "gpt-4o", "messages": []}
BODY = b'{"object":"chat.completion","choices":[]}'
PATH = "/v1/chat/completions"


class Reply:
    status, reason, complete = 200, "OK", True
    headers = ((b"Content-Type", b"application/json; charset=utf-8"),)
    fields = first_values(headers)

    def __init__(self, **more: Any) -> None:
        vars(self).update(more)
        self.fields = first_values(self.headers)

    async def read(self, sink=None) -> bytes:
        return BODY

    def close(self) -> None:
        pass


def exchange(document: Any = CHAT, *headers: tuple[bytes, bytes], path: str = PATH, project: str = "shop") -> Exchange:
    body, operation = json.dumps(document).encode(), match("POST", path, False)
    inbound = Inbound("POST", path, path, headers, first_values(headers), operation, None, len(body), True)
    x = Exchange("id", 0, 0.0, inbound)
    x.principal = Principal("alice", project, "header")
    x.request = parse_json(body, operation, limits=Limits(), force_stream_usage=True)
    x.plan = RoutePlan((Candidate("openai", "gpt-4o"), Candidate("azure", "gpt-4o")), "named_model")
    x.verdict = Verdict("v1", 10)
    return x


async def asked(cache: AnswerCache, x: Exchange, **features: bool) -> CacheLookup:
    recall = CacheLookup(cache, x, FeatureSettings(**features), ByteBudget(10_000))
    assert (await recall.find() is not None) is (recall.use == "hit")
    return recall


async def relayed(
    cache: AnswerCache, x: Exchange, reply: Any = None, change: Callable[[Exchange], Any] = id
) -> CacheLookup:
    """Let the provider answer, and end the exchange well but for what `change` does to it."""
    recall = await asked(cache, x)
    assert x.plan is not None
    x.attempts.append(Attempt(0, x.plan.candidates[0], 0.0))
    passing = recall.record(reply or Reply())
    await passing.read()
    meter = x.attempts[0].meter
    meter.terminated = True
    meter.finish_reasons.append("stop")
    change(x)
    recall.keep()
    return recall


async def test_answer_when_it_is_good_then_the_next_request_gets_it():
    cache = AnswerCache(Cache())
    missed = await relayed(cache, exchange())
    assert (missed.use, missed.headers) == ("miss", ((b"x-sidegate-cache", b"miss"),))
    recall = CacheLookup(cache, exchange(), FeatureSettings(), ByteBudget(0))
    reply = await recall.find()
    assert reply is not None and await reply.read() == BODY
    assert (recall.use, recall.headers) == ("hit", ((b"x-sidegate-cache", b"hit"), (b"age", b"0")))
    assert cache.counts.uses == {"hit": 1, "miss": 1, "bypass": 0}
    assert (await asked(cache, exchange(project="lab"))).use == "miss"


FOUND = Sighting(Finding("github-token", "secret", "medium", 0, 4), "flag", "output", "choices[0]")
IN_PROMPT = FOUND._replace(direction="prompt")
SPOILT: dict[str, Callable[[Exchange], Any]] = {
    "not complete": lambda x: setattr(x.attempts[0].meter, "terminated", False),
    "cut by the quota": lambda x: setattr(x.attempts[0].meter, "cut", True),
    "withheld": lambda x: setattr(x.attempts[0].meter, "withheld", True),
    "error in the stream": lambda x: setattr(x.attempts[0].meter, "stream_error", "x"),
    "too long": lambda x: x.attempts[0].meter.finish_reasons.append("length"),
    "no finish reason": lambda x: x.attempts[0].meter.finish_reasons.clear(),
    "finding": lambda x: x.verdict.add(FOUND),
    "not scannable": lambda x: x.verdict.miss(Unscanned("output", "body", "media")),
    "fault": lambda x: setattr(x.verdict, "faults", 1),
    "client left": lambda x: setattr(x, "error", ClientDisconnected("gone")),
    "second attempt": lambda x: x.attempts.append(Attempt(1, x.plan.candidates[0], 0.0)),
    "weak": lambda x: setattr(x, "judgement", Judgement(check="empty")),
    "disputed": lambda x: setattr(x, "judgement", Judgement(check="passed", cross_check="disputed")),
    "fallback": lambda x: setattr(x.attempts[0], "candidate", x.plan.candidates[1]),
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT.keys())
async def test_answer_when_anything_is_wrong_with_it_then_it_is_not_kept(change):
    cache = AnswerCache(Cache())
    await relayed(cache, exchange(), change=change)
    assert cache.counts.kept == 0


async def test_answer_when_the_prompt_held_a_finding_then_it_is_kept():
    cache = AnswerCache(Cache())
    await relayed(cache, exchange(), change=lambda x: x.verdict.add(IN_PROMPT))
    assert cache.counts.kept == 1


def _agreed(x: Exchange) -> None:
    x.answered = x.attempts[0]
    x.attempts.append(Attempt(1, x.plan.candidates[1], 0.0))
    x.judgement = Judgement(check="passed", cross_check="agreed")


async def test_answer_when_a_second_opinion_agreed_then_it_is_kept_for_those_who_want_one():
    cache = AnswerCache(Cache())
    await relayed(cache, exchange(), change=_agreed)
    assert cache.counts.kept == 1
    assert (await asked(cache, exchange(), enable_cross_check=True)).use == "miss"


REPLIES = {
    "status": Reply(status=206),
    "events where a document was asked for": Reply(headers=((b"content-type", b"text/event-stream"),)),
    "encoding that nobody can undo": Reply(headers=(*Reply.headers, (b"content-encoding", b"br"))),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
async def test_answer_when_it_is_of_another_kind_then_it_is_not_kept(reply):
    cache = AnswerCache(Cache())
    await relayed(cache, exchange(), reply)
    assert cache.counts.kept == 0


BYPASSES = {
    "no-store": (exchange(CHAT, (b"Cache-Control", b"no-store")), 0),
    "no-cache": (exchange(CHAT, (b"Cache-Control", b"no-cache")), 1),
    "not cacheable": (exchange({**CHAT, "store": True}), 0),
}


@pytest.mark.parametrize(("x", "kept"), BYPASSES.values(), ids=BYPASSES.keys())
async def test_request_when_it_bypasses_then_nothing_is_given_and_kept_only_if_it_may_be(x, kept):
    cache = AnswerCache(Cache())
    await relayed(cache, exchange())
    cache.counts.kept = 0
    recall = await relayed(cache, x)
    assert (recall.use, cache.counts.kept) == ("bypass", kept)


async def test_embeddings_when_answered_then_kept_without_a_finish_reason():
    cache = AnswerCache(Cache())
    asked = {"model": "gpt-4o", "input": "x"}
    await relayed(
        cache, exchange(asked, path="/v1/embeddings"), change=lambda x: x.attempts[0].meter.finish_reasons.clear()
    )
    assert cache.counts.kept == 1


async def test_usage_when_a_kept_answer_tells_it_then_only_who_asked_gets_it_in_a_stream():
    class Told(Reply):
        async def read(self, sink=None) -> bytes:
            return BODY[:-1] + b',"usage":{"prompt_tokens":3}}'

    cache, stream = AnswerCache(Cache()), CHAT | {"stream": True}
    await relayed(cache, exchange(), Told(), lambda x: setattr(x.attempts[0].meter, "usage", Usage(3)))
    for document, tells in ((stream, False), (stream | {"stream_options": {"include_usage": True}}, True)):
        found = await CacheLookup(cache, exchange(document), FeatureSettings(), ByteBudget(0)).find()
        assert found is not None and (b'"usage"' in await found.read()) is tells


async def test_request_when_it_is_large_then_others_get_their_turn_while_it_is_read_again():
    cache = AnswerCache(Cache())
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}] * 5000}
    await relayed(cache, exchange(document))
    x = exchange(document)
    assert x.request is not None
    x.request = replace(x.request, document=None)
    asking = asyncio.ensure_future(asked(cache, x))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 2
    assert (await asking).use == "hit"
