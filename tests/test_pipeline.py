"""The phases in order, against ends and stores of the test's own: what every failure in every phase leaves behind.

Whatever happens there is exactly one final record, made before the last byte could leave, with the right outcome; the
intent precedes the provider; the budget is given back and the provider's answer closed.
"""

import asyncio
import gc
import json
from dataclasses import dataclass, field
from functools import cache

import pytest

from proxy import errors
from proxy.cache.answers import AnswerCache
from proxy.config.layers import Layers
from proxy.config.policy import Policy as PolicySettings
from proxy.config.quota import Quota
from proxy.config.schema import Config, Prices, Tracing
from proxy.config.schema import Shedding as LimitsOfLoad
from proxy.exchange import Exchange, Inbound, Message, ToolCall, Usage, first_values
from proxy.metrics import Metrics
from proxy.openai.operations import match
from proxy.phases.intake import ByteBudget
from proxy.phases.planner import Planner
from proxy.pipeline import Pipeline
from proxy.policy.ready import Policies
from proxy.process.shedding import Shedding
from proxy.quota.reservations import Reservations
from proxy.routing.catalogue import Catalogue
from proxy.routing.dispatch import Dispatcher
from proxy.routing.health import Health
from proxy.trace.chains import Chains
from proxy.trace.record import trace_id
from tests.fakes.projects import Projects
from tests.phases.test_intake import FORM, MULTIPART, Body
from tests.policy.secrets import HIGH
from tests.quota.replica import without_limits
from tests.relay.peers import JSON, STREAM, Client, Reply, Socket, announced

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello you"}]}'
STREAMED = b'{"model":"gpt-4o","stream":true,"messages":[]}'
ANSWER = (
    b'{"id":"c","model":"gpt-4o-1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}'
)
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"
CLOSE = Message("close", "", 1000)


class PricesOf:
    """A nano-dollar per token. `broken`: asking for a price is a bug."""

    def __init__(self, *models, broken=False):
        self.models = models or ("gpt-4o", "gpt-4o-1", "whisper-1")
        self.broken = broken

    def at(self, _tier):
        return self

    def knows(self, model):
        return model in self.models

    def is_own(self, _model):
        return False

    def price(self, model, usage, _largest_input=None):
        if self.broken:
            raise ZeroDivisionError("sk-canary")
        return usage.input_tokens + usage.output_tokens, self.knows(model)

    def highest_prices(self, _model, *, media, input_tokens=None):
        return 1, 1


class BrokenMetrics(Metrics):
    def observe(self, x):
        raise KeyError("sk-canary")


class LateMetrics(Metrics):
    """Keeps what the client had when a request was counted."""

    def __init__(self, scene):
        super().__init__(10)
        self._scene = scene

    def observe(self, x):
        self.journal = list(self._scene.client.journal)


UNSEEN = PolicySettings(scan_outputs=False)
"""Answers as they come: what looks at them may hold a piece of text until more has come."""


@cache
def policies_of(settings: str) -> Policies:
    """Compiling the rules takes long, so it is done once for all tests with the same settings."""
    policies = Policies(PolicySettings.model_validate_json(settings))
    policies.prepare()
    return policies


@dataclass
class Scene:
    """One exchange and everything around it. `log` is the order of what happened at all ends."""

    reply: object = None
    """A reply, an exception, or an event to wait for without end."""
    log: list = field(default_factory=list)
    records: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    journal_error: Exception | None = None
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(1 << 20))
    shedding: Shedding = field(
        default_factory=lambda: Shedding(LimitsOfLoad(), Metrics(1), None, concurrent_requests=8)
    )
    settings: dict = field(default_factory=dict)
    prices: object = field(default_factory=PricesOf)
    projects: Projects = field(default_factory=Projects)
    metrics: Metrics = field(default_factory=lambda: Metrics(10))
    attempt_hook: object = None
    x: Exchange | None = None
    client: Client | None = None

    # The journal.

    def append_intent(self, key, body):
        assert key.hex() == self.x.trace_id.replace("-", "")
        if self.journal_error is not None:
            raise self.journal_error
        self._append("intent", body)

    def append_final(self, key, body):
        assert key.hex() == self.x.trace_id.replace("-", "")
        self.client.note("seal")
        self._append("final", body)

    def append_content(self, _key, body):
        self._append("content", body)

    def _append(self, kind, body):
        self.log.append(kind)
        self.records.append((kind, json.loads(body)))

    # The provider.

    name = "default"
    force_stream_usage = True
    secrets = (b"sk-provider-key",)

    async def send(self, attempt, inbound, body):
        self.log.append("ask")
        attempt.sent = True
        if self.attempt_hook is not None:
            self.attempt_hook(attempt)
        if body is not None and not isinstance(body, bytes):
            body = b"".join([piece async for piece in body])
        self.asked.append(body)
        return await self._answer()

    async def connect(self, attempt, inbound):
        self.log.append("ask")
        attempt.sent = True
        return await self._answer()

    async def _answer(self):
        await asyncio.sleep(0)
        if isinstance(self.reply, asyncio.Event):
            await self.reply.wait()
        if isinstance(self.reply, BaseException):
            raise self.reply
        return self.reply

    def response_headers(self, reply):
        return tuple(reply.headers)

    # What a test does with it.

    def pipeline(self) -> Pipeline:
        config = Config(**{"quota": Quota(enabled=False), "policy": UNSEEN, **self.settings})
        recorded = lambda: self.log.append("recorded")  # noqa: E731
        quotas = without_limits(config.quota)
        health = Health(config.providers, config.routing.breaker, lambda: 0.5)
        catalogue = Catalogue(config.providers, Layers())
        return Pipeline(
            config,
            self,
            Planner(config, catalogue=catalogue, health=health, prices=self.prices, quotas=quotas),
            Dispatcher(config.routing, health),
            self.prices,
            self.projects,
            policies_of(config.policy.model_dump_json()),
            quotas,
            self,
            self.metrics,
            recorded,
            self.budget,
            self.shedding,
            AnswerCache(config.cache),
            Chains(),
        )

    def exchange(self, body, *headers, path="/v1/chat/completions", method="POST", upgrade=False) -> Exchange:
        inbound = Inbound(
            method=method,
            target=path,
            path=path,
            headers=headers,
            fields=first_values(headers),
            operation=match(method, path, upgrade),
            peer="127.0.0.1",
            content_length=len(body) if body else None,
            has_body=bool(body),
        )
        self.x = Exchange(trace_id(1_780_000_000_000), 1_780_000_000_000, 0.0, inbound)
        return self.x

    async def run(self, body=CHAT, *headers, leaves_after=None, ended_by=None, source=None, **target):
        """Handle one request; its headers say JSON unless others are given."""
        x = self.exchange(body, *(headers or (JSON,)), **target)
        self.client = Client(leaves_after, x.delivery)
        self.client.ended_by = ended_by
        try:
            await self.pipeline().handle(x, source or Body(body), self.client)
        finally:
            assert (self.budget.used_bytes, self.shedding.running) == (0, 0)
            assert self.shedding.running == 0
            if isinstance(self.reply, Reply):
                assert self.reply.closed or "ask" not in self.log
        return self.final

    async def converse(self, client_socket, *headers):
        x = self.exchange(b"", *headers, path="/v1/realtime", method="GET", upgrade=True)
        self.client = Client(delivery=x.delivery)
        await self.pipeline().handle_websocket(x, client_socket, self.client)
        return self.final

    @property
    def final(self) -> dict:
        finals = [record for kind, record in self.records if kind == "final"]
        assert len(finals) == 1
        return finals[0]

    @property
    def error(self) -> dict:
        """The error that the client got as its answer."""
        described = json.loads(self.client.body)["error"]
        assert set(described) == {"message", "type", "param", "code"}
        headers = dict(self.client.headers)
        assert headers[b"x-sidegate-trace-id"] == headers[b"x-request-id"] == self.x.trace_id.encode()
        assert headers[b"Content-Type"] == b"application/json"
        return described


def reply(*steps, headers=(JSON,), **facts) -> Reply:
    return Reply(steps, headers, **facts)


async def test_request_when_all_goes_well_then_intent_provider_record_and_answer_in_this_order():
    scene = Scene(reply(ANSWER))
    final = await scene.run()
    assert scene.log == ["intent", "ask", "final", "recorded"]
    assert scene.client.journal == ["seal", "head", "byte", "end"]
    assert (scene.client.status, scene.client.body, scene.asked) == (200, ANSWER, [CHAT])
    assert (final["outcome"], final["status"], final["input_tokens"], final["output_tokens"]) == ("ok", 200, 7, 3)
    assert (final["usage_source"], final["total_cost"]) == ("provider", "0.000000010")
    assert list(scene.x.marks) == ["parse", "scan", "plan", "intent", "dispatch", "relay"]
    assert scene.x.plan.candidates[0].model == "gpt-4o"


async def test_request_when_its_project_has_ended_then_refused_and_recorded_but_never_sent():
    scene = Scene(reply(ANSWER), projects=Projects({"default-project": None}))
    final = await scene.run()
    assert (final["status"], final["project_id"], final["outcome"], scene.asked) == (
        403, "default-project", "rejected", []
    )  # fmt: skip


async def test_request_when_projects_are_not_read_yet_then_it_waits_for_them_before_anything_else():
    scene = Scene(reply(ANSWER), projects=Projects(is_ready=False))
    await scene.run()
    assert scene.projects.waits == 1
    assert scene.client.status == 200


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(None, [b"x-sidegate-trace-id", b"x-request-id"]), (b"req_1", [b"x-request-id", b"x-sidegate-trace-id"])],
)
async def test_answer_when_the_provider_gave_an_id_then_it_stays_and_ours_stands_beside_it(theirs, ours):
    headers = (JSON,) if theirs is None else (JSON, (b"x-request-id", theirs))
    scene = Scene(reply(ANSWER, headers=headers))
    await scene.run()
    names = [name for name, _ in scene.client.headers if name.startswith(b"x-")]
    assert names == ours
    assert dict(scene.client.headers)[b"x-request-id"] == (theirs or scene.x.trace_id.encode())


async def test_stream_when_usage_was_not_asked_for_then_it_is_asked_of_the_provider_and_kept_from_the_client():
    scene = Scene(reply(DELTA, USAGE_EVENT, DONE, headers=(STREAM,)))
    final = await scene.run(STREAMED)
    assert json.loads(scene.asked[0])["stream_options"] == {"include_usage": True}
    assert scene.client.body == DELTA + DONE
    assert (final["outcome"], final["input_tokens"], final["stream"]) == ("ok", 7, True)
    assert scene.client.journal == ["head", "byte", "seal", "byte", "end"]


async def test_answer_when_it_is_the_providers_error_then_it_passes_and_costs_nothing():
    scene = Scene(reply(b'{"error":{"code":"model_not_found"}}', status=404))
    final = await scene.run()
    assert (scene.client.status, scene.client.body) == (404, b'{"error":{"code":"model_not_found"}}')
    assert (final["outcome"], final["status"], final["total_cost"]) == ("upstream_error", 404, "0.000000000")


async def test_head_when_answered_then_without_a_body():
    scene = Scene(reply(headers=(JSON, announced(ANSWER))))
    final = await scene.run(b"", (b"Accept", b"*/*"), path="/v1/models", method="HEAD")
    assert (scene.client.length, scene.client.body, final["outcome"]) == (len(ANSWER), b"", "ok")


# What goes wrong, the request's headers and body, then what the client gets, the outcome, and what was done before.
FAILURES = {
    "identify": ({}, (JSON, (b"X-Sidegate-User", b"")), None, 400, "invalid_header", "rejected", []),
    "parse": ({}, (JSON,), Body(b"{"), 400, "invalid_json", "rejected", []),
    "body too slow": (
        {},
        (JSON,),
        Body(errors.InvalidRequest("slow", status=408, code="request_timeout")),
        408,
        "request_timeout",
        "rejected",
        [],
    ),
    "media type": ({}, ((b"Content-Type", b"text/plain"),), None, 415, "unsupported_media_type", "rejected", []),
    "intent": (
        {"journal_error": errors.JournalUnavailable("full")},
        (JSON,),
        None,
        503,
        "journal_unavailable",
        "rejected",
        [],
    ),
    "no connection": (
        {"reply": errors.UpstreamFailed("refused", code="upstream_connect_failed", sent=False)},
        (JSON,),
        None,
        502,
        "upstream_connect_failed",
        "upstream_failed",
        ["intent", "ask"],
    ),
    "no answer in time": (
        {"reply": errors.UpstreamTimeout("slow", code="upstream_first_byte_timeout")},
        (JSON,),
        None,
        504,
        "upstream_first_byte_timeout",
        "timeout",
        ["intent", "ask"],
    ),
    "all connections busy": (
        {"reply": errors.NoUpstreamAvailable("busy", code="upstream_pool_timeout")},
        (JSON,),
        None,
        503,
        "upstream_pool_timeout",
        "upstream_failed",
        ["intent", "ask"],
    ),
    "body wrong on its way": (
        {"reply": errors.InvalidRequest("too large", status=413, code="request_too_large")},
        (JSON,),
        None,
        413,
        "request_too_large",
        "rejected",
        ["intent", "ask"],
    ),
    "answer cut while held": (
        {"reply": (ANSWER[:9], errors.UpstreamFailed("cut", code="upstream_body_cut"))},
        (JSON,),
        None,
        502,
        "upstream_body_cut",
        "truncated",
        ["intent", "ask"],
    ),
    "bug while reading": ({}, (JSON,), Body(ValueError("sk-canary")), 500, "internal_error", "internal_error", []),
    "bug in the journal": (
        {"journal_error": ValueError("sk-canary")},
        (JSON,),
        None,
        500,
        "internal_error",
        "internal_error",
        [],
    ),
    "bug in the client": (
        {"reply": ValueError("sk-canary")},
        (JSON,),
        None,
        500,
        "internal_error",
        "internal_error",
        ["intent", "ask"],
    ),
    "bug in the relay": (
        {"reply": (ANSWER[:9], ValueError("sk-canary"))},
        (JSON,),
        None,
        500,
        "internal_error",
        "internal_error",
        ["intent", "ask"],
    ),
}


@pytest.mark.parametrize("case", FAILURES.values(), ids=FAILURES.keys())
async def test_phase_when_it_fails_then_one_record_first_and_an_error_answer_of_the_usual_shape(case):
    facts, headers, source, status, code, outcome, before = case
    if isinstance(facts.get("reply"), tuple):
        facts = {"reply": reply(*facts["reply"])}
    scene = Scene(**facts)
    final = await scene.run(CHAT, *headers, source=source)
    assert scene.log == [*before, "final", "recorded"]
    assert scene.client.journal == ["seal", "head", "byte", "end"]
    assert (scene.client.status, scene.error["code"]) == (status, code)
    assert "canary" not in scene.client.body.decode()
    assert (final["outcome"], final["status"], final["error_info"]["code"]) == (outcome, status, code)
    assert "canary" not in json.dumps(final)


@pytest.mark.parametrize(
    ("failure", "outcome", "code"),
    [
        (errors.UpstreamFailed("cut", code="upstream_body_cut"), "truncated", "upstream_body_cut"),
        (errors.UpstreamTimeout("slow", code="upstream_gap_timeout"), "timeout", "upstream_gap_timeout"),
        (ValueError("sk-canary"), "internal_error", "internal_error"),
    ],
)
async def test_stream_when_it_breaks_off_between_events_then_an_error_event_and_a_visible_cut(failure, outcome, code):
    scene = Scene(reply(DELTA, failure, headers=(STREAM,)))
    final = await scene.run(STREAMED)
    assert scene.client.journal == ["head", "byte", "seal", "byte", "cut"]
    assert scene.client.pieces[0] == DELTA
    assert json.loads(scene.client.pieces[1].removeprefix(b"data: "))["error"]["code"] == code
    assert b"[DONE]" not in scene.client.body
    assert (final["outcome"], final["status"], final["usage_source"]) == (outcome, 200, "estimated")
    assert final["output_tokens"] == 2


async def test_stream_when_it_breaks_off_inside_an_event_then_it_is_cut_and_nothing_is_added():
    asked = STREAMED[:-1] + b',"stream_options":{"include_usage":true}}'
    scene = Scene(reply(DELTA, DELTA[:20], errors.UpstreamFailed("cut"), headers=(STREAM,)))
    final = await scene.run(asked)
    assert scene.client.body == DELTA + DELTA[:20]
    assert (scene.client.journal[-1], final["outcome"]) == ("cut", "truncated")


async def test_download_when_it_breaks_off_then_it_is_cut():
    audio = (b"Content-Type", b"audio/mpeg")
    scene = Scene(reply(b"abc", errors.UpstreamFailed("cut"), headers=(audio, (b"Content-Length", b"9"))))
    final = await scene.run(b"", audio, path="/v1/files/f/content", method="GET")
    assert scene.client.journal == ["head", "byte", "seal", "cut"]
    assert (final["outcome"], final["usage_source"]) == ("truncated", "none")


async def test_stream_when_it_ends_without_its_terminator_then_it_is_truncated():
    scene = Scene(reply(DELTA, headers=(STREAM,)))
    assert (await scene.run(STREAMED))["outcome"] == "truncated"
    assert scene.client.body == DELTA


async def test_client_when_it_stops_reading_then_it_is_cut_and_what_was_used_is_charged():
    scene = Scene(reply(DELTA, DELTA, DONE, headers=(STREAM,)))
    final = await scene.run(STREAMED, leaves_after=1)
    assert scene.client.journal == ["head", "byte", "cut", "seal"]
    assert (final["outcome"], final["usage_source"], final["output_tokens"]) == ("client_abort", "estimated", 2)


async def test_client_when_it_is_gone_before_an_error_reaches_it_then_the_record_says_what_failed():
    scene = Scene(errors.UpstreamFailed("refused"))
    final = await scene.run(leaves_after=0)
    assert scene.client.journal[-1] == "cut"
    assert final["outcome"] == "upstream_failed"


SILENCE = asyncio.Event


def slow_body() -> Body:
    class Slow(Body):
        async def stream(self, limit_bytes):
            await asyncio.Event().wait()
            yield b""

    return Slow()


CANCELLED = {
    "while the body comes": (lambda: None, slow_body, [], None),
    "while the provider is asked": (SILENCE, lambda: None, ["intent", "ask"], None),
    "while an answer is held": (lambda: reply(ANSWER[:9], SILENCE()), lambda: None, ["intent", "ask"], None),
    "while a stream runs": (
        lambda: reply(DELTA, SILENCE(), headers=(STREAM,)),
        lambda: None,
        ["intent", "ask"],
        200,
    ),
}


async def cancelled(scene: Scene, source, *, ended_by: errors.ProxyError | None):
    task = asyncio.create_task(scene.run(STREAMED, source=source))
    for _ in range(20):
        await asyncio.sleep(0)
    scene.client.ended_by = ended_by
    task.cancel()
    await asyncio.wait([task])
    return task


@pytest.mark.parametrize("case", CANCELLED.values(), ids=CANCELLED.keys())
async def test_client_when_it_leaves_at_any_moment_then_one_record_and_the_cancellation_goes_on(case):
    make_reply, make_source, before, status = case
    scene = Scene(make_reply())
    task = await cancelled(scene, make_source(), ended_by=None)
    assert task.cancelled()
    assert scene.log == [*before, "final", "recorded"]
    assert (scene.final["outcome"], scene.client.status) == ("client_abort", status)
    assert scene.final["error_info"]["code"] == "client_disconnected"


@pytest.mark.parametrize("case", CANCELLED.values(), ids=CANCELLED.keys())
async def test_drain_when_its_time_is_over_at_any_moment_then_the_client_is_told(case):
    make_reply, make_source, before, status = case
    scene = Scene(make_reply())
    task = await cancelled(scene, make_source(), ended_by=errors.ShuttingDown("over"))
    assert not task.cancelled() and task.exception() is None
    assert scene.log == [*before, "final", "recorded"]
    assert scene.final["outcome"] == ("drain_abort" if before else "rejected")
    if status is None:
        assert (scene.client.status, scene.error["code"]) == (503, "shutting_down")
    else:
        assert b'"code":"shutting_down"' in scene.client.body
        assert scene.client.journal == ["head", "byte", "seal", "byte", "cut"]


async def test_journal_when_it_refuses_the_intent_then_the_provider_is_not_asked_and_the_client_may_come_again():
    scene = Scene(reply(ANSWER), journal_error=errors.JournalUnavailable("full", retry_after_s=1.0))
    await scene.run()
    assert (scene.client.status, scene.asked) == (503, [])
    assert dict(scene.client.headers)[b"Retry-After"] == b"1"


async def test_record_when_charging_is_broken_then_answer_and_record_come_all_the_same(caplog):
    scene = Scene(reply(ANSWER), prices=PricesOf(broken=True))
    final = await scene.run()
    assert scene.client.body == ANSWER
    assert scene.client.journal == ["seal", "head", "byte", "end"]
    assert (final["outcome"], final["user_id"], final["model"]) == ("internal_error", "anonymous", "gpt-4o")
    assert (final["usage_source"], final["llm_calls"][0]["model"]) == ("estimated", "gpt-4o")
    assert final["input_tokens"] > 0
    assert "a trace record could not be built" in caplog.messages


async def test_record_when_it_cannot_be_made_then_what_was_charged_stays_exact(caplog):
    def spoil(attempt):
        attempt.meter.tool_calls.append(ToolCall("call", "id", object(), 3))

    scene = Scene(reply(ANSWER), attempt_hook=spoil)
    final = await scene.run()
    assert scene.client.body == ANSWER
    assert (final["outcome"], final["input_tokens"], final["total_cost"]) == ("internal_error", 7, "0.000000010")
    assert (final["usage_source"], final["id"]) == ("provider", scene.x.trace_id)
    assert "a trace record could not be built" in caplog.messages


async def test_record_when_it_cannot_be_made_before_anything_was_sent_then_nothing_is_owed(caplog):
    class Strange(Body):
        async def read(self, limit_bytes):
            scene.x.marks["odd"] = None
            raise errors.InvalidRequest("no")

    scene = Scene()
    final = await scene.run(source=Strange())
    assert scene.client.status == 400
    assert (final["outcome"], final["total_cost"], final["usage_source"]) == ("internal_error", "0.000000000", "none")
    assert "a trace record could not be built" in caplog.messages


async def test_metrics_when_broken_then_answer_and_record_are_not_touched(caplog):
    scene = Scene(reply(ANSWER), metrics=BrokenMetrics(10))
    final = await scene.run()
    assert (scene.client.body, final["outcome"]) == (ANSWER, "ok")
    assert caplog.messages == ["the metrics of a request could not be recorded"]


@pytest.mark.parametrize("answered", [reply(ANSWER), errors.UpstreamFailed("no answer")], ids=["answer", "error"])
async def test_metrics_when_an_answer_is_written_then_no_client_has_waited_for_them(answered):
    scene = Scene(answered)
    scene.metrics = LateMetrics(scene)
    await scene.run()
    assert scene.metrics.journal == ["seal", "head", "byte", "end"]


async def test_metrics_when_a_request_ends_then_it_is_counted_once():
    scene = Scene(reply(DELTA, errors.UpstreamFailed("cut"), headers=(STREAM,)))
    await scene.run(STREAMED)
    counted = [line for line in scene.metrics.render().decode().splitlines() if line.startswith("sidegate_requests_t")]
    assert len(counted) == 1
    assert 'outcome="truncated"' in counted[0] and counted[0].endswith(" 1.0")


@pytest.mark.parametrize(
    ("answered", "sent"),
    [
        (lambda: reply(ANSWER), b"{}"),
        (lambda: reply(DELTA, DONE, headers=(STREAM,)), STREAMED),
        (lambda: errors.UpstreamFailed("no answer"), b"{}"),
        (lambda: reply(DELTA, errors.UpstreamFailed("cut"), headers=(STREAM,)), STREAMED),
    ],
    ids=["answer", "stream", "no answer", "cut stream"],
)
async def test_exchange_when_over_then_nothing_of_it_waits_for_the_garbage_collector(monkeypatch, answered, sent):
    scene = Scene(answered(), settings={"quota": Quota()})
    monkeypatch.setattr(Reservations, "reserve_now", lambda self, principal, _bound: self.without_limit(principal))
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await scene.run(sent)
        scene.x = None
        gc.collect()
        left = {type(one).__name__ for one in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left & {"Exchange", "Settling", "Reservation", "Answer", "Meter"}


async def test_log_when_a_request_fails_on_the_providers_side_then_one_line_names_its_trace(caplog):
    scene = Scene(errors.UpstreamFailed("refused"))
    await scene.run()
    (line,) = [entry for entry in caplog.records if entry.name == "sidegate.requests"]
    assert (line.trace, line.outcome, line.status) == (scene.x.trace_id, "upstream_failed", 502)


async def test_log_when_there_is_a_bug_then_it_names_the_trace(caplog):
    scene = Scene(ValueError("x"))
    await scene.run()
    assert [entry.trace for entry in caplog.records if entry.message == "request failed"] == [scene.x.trace_id]


@pytest.mark.parametrize(("unknown", "status"), [("deny", 400), ("estimate", 200)])
async def test_model_when_it_has_no_price_then_the_setting_decides(unknown, status):
    scene = Scene(reply(ANSWER), settings={"prices": Prices(unknown_model=unknown)}, prices=PricesOf("other"))
    await scene.run()
    assert scene.client.status == status
    if status == 400:
        assert (scene.error["code"], scene.error["param"], scene.asked) == ("model_not_priced", "model", [])


async def test_upload_when_its_form_has_passed_then_model_and_user_of_the_form_are_charged():
    form = FORM.replace(b"--b--", b'--b\r\nContent-Disposition: form-data; name="user"\r\n\r\neve\r\n--b--')
    scene = Scene(reply(b'{"text":"hi","usage":{"type":"tokens","input_tokens":5,"output_tokens":2}}'))
    final = await scene.run(form, MULTIPART, source=Body(form[:60], form[60:]), path="/v1/audio/transcriptions")
    assert scene.asked == [form]
    assert (final["model"], final["user_id"], final["request_bytes"]) == ("whisper-1", "eve", len(form))
    assert (final["llm_calls"][0]["model"], final["total_cost"]) == ("whisper-1", "0.000000007")
    assert scene.x.charges[0].priced


@pytest.mark.parametrize(
    ("headers", "body_user", "user", "conversation"),
    [
        ((), None, "anonymous", None),
        ((), "bob", "bob", None),
        (((b"X-Sidegate-User", b"ann"), (b"X-Sidegate-Conversation", b"c-1")), "bob", "ann", "c-1"),
    ],
)
async def test_caller_when_header_and_body_name_one_then_the_record_has_the_right_one(
    headers, body_user, user, conversation
):
    document = {"model": "gpt-4o", "messages": [], **({"user": body_user} if body_user else {})}
    scene = Scene(reply(ANSWER))
    final = await scene.run(json.dumps(document).encode(), JSON, *headers)
    assert (final["user_id"], final["conversation_ref"]) == (user, conversation)


@pytest.mark.parametrize("mode", ["off", "redacted", "full"])
async def test_content_when_kept_then_after_the_record_and_otherwise_not_at_all(mode):
    scene = Scene(reply(ANSWER), settings={"tracing": Tracing(content=mode)})
    await scene.run()
    kinds = [kind for kind, _ in scene.records]
    assert kinds == ["intent", "final"] if mode == "off" else ["intent", "final", "content"]


async def test_content_when_tracing_is_off_then_nothing_of_it_is_kept():
    scene = Scene(reply(ANSWER), settings={"tracing": Tracing(enabled=False, content="full")})
    await scene.run()
    assert [kind for kind, _ in scene.records] == ["intent", "final"]


@pytest.mark.parametrize(
    ("lag_s", "admission", "priority", "status", "kinds"),
    [
        (0.1, {}, None, 200, ["intent", "final"]),
        (0.6, {}, b"critical", 503, ["final"]),
        (0.6, {"priorityHeader": True}, b"normal", 503, ["final"]),
        (0.6, {"priorityHeader": True}, b"critical", 200, ["intent", "final"]),
        (0.6, {"priority": "critical"}, None, 200, ["intent", "final"]),
    ],
    ids=str,
)
async def test_request_when_the_process_is_late_then_only_critical_ones_begin_and_no_content_is_kept(
    lag_s, admission, priority, status, kinds
):
    scene = Scene(
        reply(ANSWER),
        settings={"tracing": Tracing(content="full")},
        projects=Projects({"default-project": {"admission": admission}}),
    )
    for _ in range(3):
        scene.shedding.note(lag_s, 0)
    final = await scene.run(CHAT, JSON, *(((b"X-Sidegate-Priority", priority),) if priority else ()))
    assert (final["status"], [kind for kind, _ in scene.records]) == (status, kinds)
    assert status == 200 or scene.error["code"] == "overloaded_lag"


async def test_memory_when_it_is_at_its_end_then_a_request_that_is_ended_is_charged_and_told():
    scene = Scene(asyncio.Event())
    error = errors.Overloaded("No memory.", code="overloaded_memory")
    await cancelled(scene, None, ended_by=error)
    assert (scene.client.status, scene.error["code"]) == (503, "overloaded_memory")
    assert (scene.final["outcome"], scene.final["usage_source"]) == ("overload_abort", "estimated")


class ClientSocket(Socket):
    """The client's side of a websocket; `refuses`: what its handshake fails with."""

    def __init__(self, *messages, refuses=None):
        super().__init__(*messages)
        self.refuses = refuses
        self.accepted = []
        self.finished = False

    async def accept(self, subprotocol, headers):
        if self.refuses is not None:
            raise self.refuses
        self.accepted = [subprotocol, headers]

    async def finish(self):
        self.finished = True


class Session(Reply):
    """An accepted handshake."""

    def __init__(self, *messages):
        super().__init__((), ((b"x-request-id", b"req_ws"),), status=101)
        self.socket = Socket(*messages)
        self.subprotocol = "realtime"


def response_done(tokens: int) -> Message:
    usage = {"total_tokens": tokens + 1, "input_tokens": tokens, "output_tokens": 1}
    return Message("text", json.dumps({"type": "response.done", "response": {"id": "r", "usage": usage}}))


@pytest.mark.parametrize("closes", ["client", "provider"])
async def test_session_when_closed_by_a_side_then_it_is_recorded_as_complete(closes):
    session = Session(response_done(5), response_done(6), *([CLOSE] if closes == "provider" else []))
    scene = Scene(session)
    client = ClientSocket(*([Message("ping")] * 5), *([CLOSE] if closes == "client" else []))
    final = await scene.converse(client)
    assert client.accepted[0] == "realtime"
    assert dict(client.accepted[1])[b"x-sidegate-trace-id"] == scene.x.trace_id.encode()
    assert client.finished and session.closed
    assert scene.log == ["intent", "ask", "final", "recorded"]
    assert (final["outcome"], final["status"]) == ("ok", 101)
    if closes == "provider":
        assert client.sent[-1] == CLOSE
        assert scene.x.attempts[0].meter.usage == Usage(input_tokens=11, output_tokens=2)


@pytest.mark.parametrize(
    ("client", "session", "outcome"),
    [
        (lambda: ClientSocket(Message("close", abrupt=True)), Session, "client_abort"),
        (ClientSocket, lambda: Session(Message("close", abrupt=True)), "truncated"),
        (ClientSocket, lambda: Session(errors.UpstreamFailed("frame refused")), "truncated"),
        (lambda: ClientSocket(errors.InvalidRequest("too large")), Session, "rejected"),
        (ClientSocket, lambda: Session(ValueError("bug")), "internal_error"),
    ],
)
async def test_session_when_a_side_is_lost_then_the_record_says_whose_and_both_are_dropped(client, session, outcome):
    scene = Scene(session())
    client_socket = client()
    final = await scene.converse(client_socket)
    assert final["outcome"] == outcome
    assert scene.client.journal[-1] in ("cut", "seal")
    assert "cut" in scene.client.journal
    assert scene.reply.closed
    assert not client_socket.finished


async def test_session_when_the_provider_refuses_it_then_its_answer_passes():
    refusal = reply(b'{"error":{"code":"model_not_found"}}', status=404)
    refusal.socket = None
    scene = Scene(refusal)
    final = await scene.converse(ClientSocket())
    assert (scene.client.status, scene.client.body) == (404, b'{"error":{"code":"model_not_found"}}')
    assert (final["outcome"], scene.reply.closed) == ("upstream_error", True)


async def test_session_when_the_clients_handshake_is_not_valid_then_it_gets_400_and_the_provider_is_dropped():
    scene = Scene(Session())
    final = await scene.converse(ClientSocket(refuses=errors.InvalidRequest("no", code="invalid_handshake")))
    assert (scene.client.status, scene.error["code"]) == (400, "invalid_handshake")
    assert (final["status"], scene.reply.closed) == (400, True)


async def test_session_when_cancelled_then_one_record_and_no_task_is_left():
    scene = Scene(Session())
    before = asyncio.all_tasks()
    task = asyncio.create_task(scene.converse(ClientSocket()))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert scene.final["outcome"] == "client_abort"
    assert scene.reply.closed
    assert asyncio.all_tasks() == before


BLOCKING = {"policy": PolicySettings(output_actions={"secret": "block"})}


async def test_answer_when_the_policy_blocks_what_it_says_then_the_client_gets_an_error_instead():
    said = {**json.loads(ANSWER), "choices": [{"index": 0, "message": {"content": HIGH}}]}
    scene = Scene(reply(json.dumps(said).encode()), settings=BLOCKING)
    final = await scene.run()
    error = json.loads(scene.client.body)["error"]
    assert (scene.client.status, error["code"], error["param"]) == (
        400,
        "policy_violation",
        "choices[0].message.content",
    )
    assert error["details"] == {"rules": ["github-token"]}
    assert HIGH.encode() not in scene.client.body
    assert (final["outcome"], final["input_tokens"]) == ("policy_cut", 7)


async def test_stream_when_the_policy_blocks_what_it_says_then_it_ends_in_front_of_it():
    pieces = [DELTA.replace(b"hello", piece) for piece in (b"It is ", HIGH[:9].encode(), HIGH[9:].encode(), b" ok")]
    scene = Scene(reply(*pieces, DONE, headers=(STREAM,)), settings=BLOCKING)
    final = await scene.run(STREAMED)
    assert scene.client.body.startswith(pieces[0])
    assert b"ghp_" not in scene.client.body and b" ok" not in scene.client.body
    assert b"policy_violation" in scene.client.body
    assert final["outcome"] == "policy_cut"
