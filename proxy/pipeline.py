"""The life of a request: its phases, in order. Only this file, `settling` and `outgoing` assign to the Exchange.

    identify -> parse -> scan_prompt -> plan_route -> cached? -> reserve -> intent -> dispatch -> commit point -> relay
    always: settle -> record, and show once the answer is written

Nothing leaves the process before the intent is journaled. Until the commit point (the first byte sent downstream) a
failure becomes an error response in OpenAI's format; after it, an error event or a visible truncation. `seal` settles
and records exactly once, without an await: the relay calls it just before the last byte is sent, and `finally` calls it
in every other case. So a client that has received a complete answer can rely on its record, and a task cancelled at any
point still settles what it has spent.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Protocol

from proxy.auth.admission import Admission, check_model
from proxy.auth.identify import conversation_hint, identify, is_critical, request_type_hint, with_body_hint
from proxy.cache.answers import AnswerCache
from proxy.config import project
from proxy.config.schema import Config
from proxy.errors import ClientDisconnected, InternalError, PolicyUnavailable, PolicyViolation, ProxyError
from proxy.exchange import (
    Attempt,
    Capture,
    Downstream,
    Exchange,
    Headers,
    ParsedRequest,
    RoutePlan,
    UpstreamReply,
    WebsocketPeer,
)
from proxy.journal.segments import Journal
from proxy.metrics import Metrics
from proxy.openai import error_body
from proxy.openai.deltas import StreamObserver
from proxy.openai.request import parse_handshake
from proxy.phases.answer_cache import CacheLookup
from proxy.phases.assurance import Assurance, is_assured, is_reviewed
from proxy.phases.further_answers import FurtherAnswers
from proxy.phases.intake import ByteBudget, Intake, RequestBody
from proxy.phases.outgoing import Outgoing
from proxy.phases.planner import Planner
from proxy.phases.screening import ScreenedClient, Screening
from proxy.phases.settling import Settling
from proxy.policy.ready import Policies
from proxy.process.shedding import Shedding
from proxy.projects.directory import Directory
from proxy.quota.headers import merge
from proxy.quota.reservation import Reservation
from proxy.quota.reservations import Reservations
from proxy.relay.answer import Answer
from proxy.relay.relay import relay
from proxy.relay.websocket import SessionLimit, SessionScan, relay_websocket
from proxy.routing.dispatch import Dispatcher, ask_once
from proxy.routing.needs import read_hints
from proxy.routing.response_headers import check_headers, route_headers
from proxy.trace.chains import Chains
from proxy.trace.spans import Tracer
from proxy.upstream.pricing import PriceTable
from proxy.upstream.upstreams import Upstreams

_log = logging.getLogger("sidegate.pipeline")


class ClientSocket(WebsocketPeer, Protocol):
    """The client's websocket, before and after its handshake."""

    async def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Complete the handshake."""

    async def finish(self) -> None:
        """Close the connection cleanly."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts that all exchanges share."""

    config: Config
    provider: Upstreams
    planner: Planner
    dispatcher: Dispatcher
    prices: PriceTable
    projects: Directory
    policies: Policies
    quotas: Reservations
    journal: Journal
    metrics: Metrics
    recorded: Callable[[], None]
    """Wakes the journal's writer."""
    budget: ByteBudget
    shedding: Shedding
    cache: AnswerCache
    chains: Chains
    admission: Admission | None = None
    """Authenticates callers in mode `keys`; `None` in mode `trusted`."""
    tracer: Tracer | None = None
    """Creates spans; `None` if OpenTelemetry is off."""

    # Plain functions that return an awaitable: a wait resumes every coroutine on the stack, so fewer are cheaper.

    def handle(self, x: Exchange, body: RequestBody, downstream: Downstream) -> Awaitable[None]:
        """Run one HTTP exchange to its end. Raises only CancelledError, when the client has disconnected."""
        run = _Run(self, x, downstream, Intake(x.inbound, body, self.config.limits, self.budget))
        return run.guarded(run.http())

    def handle_websocket(self, x: Exchange, client: ClientSocket, downstream: Downstream) -> Awaitable[None]:
        """Run one websocket session to its end. `downstream` is used until the handshake is complete."""
        run = _Run(self, x, downstream, None)
        return run.guarded(run.websocket(client))


class _Run:
    """One exchange in the course of its phases."""

    __slots__ = (
        "_answer", "_downstream", "_further", "_intake", "_lookup", "_outgoing", "_own", "_project", "_request_id",
        "_screening", "_settling", "_shares_with", "_with", "_x",
    )  # fmt: skip

    def __init__(self, pipeline: Pipeline, x: Exchange, downstream: Downstream, intake: Intake | None) -> None:
        self._with = pipeline
        self._x = x
        self._downstream = downstream
        self._intake = intake
        self._answer: Answer | None = None
        self._further: FurtherAnswers | None = None
        self._project = project.DEFAULT
        self._shares_with: str | None = None
        """The project whose share of the concurrent requests this one uses, until it ends."""
        self._screening: Screening | None = None
        self._lookup: CacheLookup | None = None
        self._settling = Settling(x, pipeline, intake)
        self._outgoing = Outgoing(x, pipeline, self._settling)
        trace_id = x.trace_id.encode()
        # Of our own, in every answer; the second only where the provider's is missing.
        self._own: Headers = ((b"x-sidegate-trace-id", trace_id),)
        self._request_id = (b"x-request-id", trace_id)

    async def http(self) -> None:
        """Phases 1 to 7 of an HTTP exchange."""
        x, intake, outgoing = self._x, self._intake, self._outgoing
        assert intake is not None
        await self._identify()
        x.request = await intake.parse(force_usage=self._with.provider.force_stream_usage)
        self._complete(x.request)
        x.marks["parse"] = time.monotonic()
        x.request = intake.slim(await self._screen(x.request, intake))
        x.marks["scan"] = time.monotonic()
        x.plan = plan = self._plan(x.request) or await self._plan_apart(x.request)
        x.marks["plan"] = time.monotonic()
        reply = await self._cached(plan) if self._project.features.enable_cache else None
        if reply is None:
            await outgoing.reserve()
            self._write_intent()
            outgoing.body = intake.outgoing(x.request)
            reply = await self._with.dispatcher.dispatch(plan, x.attempts, outgoing.send, outgoing.prepare, x.started)
            reply = self._with.planner.listing(x.inbound, reply, self._project)
            if is_assured(x.inbound.operation, plan, self._project.features):
                reply = await self._assured(plan, reply)
            reply = reply if self._lookup is None else self._lookup.record(reply)
        x.marks["dispatch"] = time.monotonic()
        try:
            answering = x.answering
            assert answering is not None
            self._answer = self._to_answer(answering, reply)
            await relay(self._answer, self._downstream, self._with.config)
            if self._lookup is not None:
                self._lookup.keep()
        finally:
            reply.close()

    async def websocket(self, client: ClientSocket) -> None:
        """Phases 1 to 7 of a websocket session."""
        x, provider, outgoing = self._x, self._with.provider, self._outgoing
        await self._identify()
        x.request = parse_handshake(x.inbound.target)
        self._complete(x.request)
        x.request = await self._screen(x.request, None)
        x.plan = plan = self._plan(x.request) or await self._plan_apart(x.request)
        x.marks["plan"] = time.monotonic()
        await outgoing.reserve()
        self._write_intent()
        reply = await ask_once(plan, x.attempts, lambda attempt: provider.connect(attempt, outgoing.head(attempt)))
        x.marks["dispatch"] = time.monotonic()
        attempt = x.attempts[-1]
        try:
            if reply.socket is None:
                self._answer = self._to_answer(attempt, reply)
                await relay(self._answer, self._downstream, self._with.config)
                return
            await client.accept(reply.subprotocol, (*provider.response_headers(reply), *self._own))
            x.delivery.status = reply.status
            x.delivery.committed_at = time.monotonic()
            observer = StreamObserver(x.inbound.operation.dialect, attempt.meter)
            allowance = self._allowance()
            limit = None if allowance is None else SessionLimit(attempt.meter, allowance, self._settling.seal)
            end = partial(self._settling.end_session, attempt)
            assert self._screening is not None
            screened, scanner = ScreenedClient(client, self._screening), self._screening.output()
            meter, dialect, seal = attempt.meter, x.inbound.operation.dialect, self._settling.seal
            scan = None if scanner is None else SessionScan(meter, scanner, dialect, seal)
            hear = self._settling.hear if x.inbound.operation.is_chained else None
            await relay_websocket(screened, reply.socket, observer.observe_message, end, limit, scan=scan, hear=hear)
            await client.finish()
        finally:
            reply.close()

    async def guarded(self, phases: Awaitable[None]) -> None:
        """Run the phases, report a failure to the client as far as possible, and settle and record in any case."""
        x = self._x
        try:
            await phases
        except ProxyError as error:
            await self._fail(error)
        except asyncio.CancelledError:
            if (ended_by := self._downstream.ended_by) is None:
                x.error = x.error or ClientDisconnected("The client closed the connection.")
                raise
            await self._fail(ended_by)
        except Exception:
            _log.exception("request failed", extra={"trace": x.trace_id})
            await self._fail(InternalError("Sidegate failed to handle the request."))
        finally:
            if self._intake is not None:
                self._intake.close()
            if self._further is not None:
                self._further.close()
            if self._shares_with is not None:
                self._with.shedding.leave(self._shares_with, is_critical=self._x.is_critical)
            self._settling.seal()
            self._settling.show()
            self._settling.untie()

    async def _fail(self, error: ProxyError) -> None:
        """Report a failure to the client in the way that is still possible."""
        x, answer, downstream = self._x, self._answer, self._downstream
        x.error = x.error or error
        asked = x.answering if isinstance(error, PolicyViolation | PolicyUnavailable) else None
        if asked is not None and asked.headers_at is None:
            asked.withdrawn = True
        try:
            if isinstance(error, ClientDisconnected):
                downstream.cut()
            elif x.delivery.committed_at is None:
                status, headers, body = error_body.render(error)
                x.delivery.status = status
                self._settling.seal()
                more = (*self._own, self._request_id, *self._rate_limits(), *self._told())
                await downstream.send(status, HTTPStatus(status).phrase, (*headers, *more), body)
            else:
                self._settling.seal()
                if answer is not None and answer.can_end_with_error:
                    await downstream.write(error_body.stream_event(error, answer.dialect))
                downstream.cut()
        except ClientDisconnected:
            downstream.cut()

    async def _identify(self) -> None:
        """Phase 1: identify the caller, the purpose of the request and the settings of the project."""
        x, projects = self._x, self._with.projects
        admission = self._with.admission
        if admission is None:
            x.principal = x.inbound.said(identify, self._with.config.identity)
        else:
            x.principal = await admission.admit(x.inbound)
        if not projects.is_ready:
            await projects.ready()
        self._project = projects.active(x.principal.project_id)
        x.is_critical = is_critical(x.inbound.fields, self._project.admission)
        self._with.shedding.enter(x.principal.project_id, is_critical=x.is_critical)
        self._shares_with = x.principal.project_id
        x.request_type = x.inbound.said(request_type_hint, self._with.config.tracing.request_types)

    def _complete(self, request: ParsedRequest) -> None:
        """Apply what headers say over what the body says, and refuse what may not be requested."""
        x, settings = self._x, self._with.config
        assert x.principal is not None
        x.principal = with_body_hint(x.principal, request.user_hint)
        check_model(x.principal, request.model, billable=x.inbound.operation.billable)
        if (conversation := x.inbound.said(conversation_hint)) is not None:
            x.request = replace(request, conversation=conversation, continues=None)
        tracing = settings.tracing
        if tracing.content != "off" and tracing.enabled and self._with.shedding.may_capture():
            x.capture = Capture(tracing.content_bytes, request=None if request.body is None else request.body)

    async def _screen(self, request: ParsedRequest, intake: Intake | None) -> ParsedRequest:
        """Phase 3: scan all text of the request; a body that is streamed is scanned while it passes."""
        x, settings, policies = self._x, self._with.config, self._with.policies
        security = self._project.security
        assert x.principal is not None
        policy = policies.get_now(security) or await policies.get(security, x.principal.project_id)
        of_policy = settings.policy
        x.verdict = policy.verdict(of_policy.max_findings)
        self._screening = Screening(policy, of_policy, settings.limits, x.verdict)
        if intake is None or not x.inbound.has_body:
            return request
        if request.body is None:
            intake.screen = await self._screening.upload(intake.observer)
            return request
        return await self._screening.request(request, x.inbound, x.capture)

    def _plan(self, request: ParsedRequest) -> RoutePlan | None:
        """Phase 4: decide where the request may go; `None` for a large body, whose decoded form was dropped."""
        x = self._x
        assert x.principal is not None
        if request.document is None and request.body is not None:
            return None
        return self._with.planner.plan(x.inbound, request, x.principal, self._project)

    async def _plan_apart(self, request: ParsedRequest) -> RoutePlan:
        """Do the same for such a body."""
        x = self._x
        assert x.principal is not None
        turn = self._with.budget.decoding_of(request.body or b"")
        return await self._with.planner.plan_apart(x.inbound, request, x.principal, self._project, turn)

    async def _cached(self, plan: RoutePlan) -> UpstreamReply | None:
        """Return a cached answer. It has been paid for, so it needs neither a reservation nor an intent."""
        x = self._x
        self._lookup = lookup = CacheLookup(self._with.cache, x, self._project.features, self._with.budget)
        reply = await lookup.find()
        x.cache = lookup.use
        if reply is not None:
            now = time.monotonic()
            candidate, meter = plan.candidates[0], replace(reply.meter)
            x.replayed = Attempt(0, candidate, now, why="cache", headers_at=now, status=reply.status, meter=meter)
        return reply

    def _write_intent(self) -> None:
        """Record the intent once phase 5 has reserved. After it, bytes may leave the process."""
        marks = self._x.marks
        if self._settling.reservation is not None and self._settling.has_quota:
            marks["reserve"] = time.monotonic()
        self._settling.write_intent()
        marks["intent"] = time.monotonic()

    async def _assured(self, plan: RoutePlan, reply: UpstreamReply) -> UpstreamReply:
        """Phase 6, continued: return the first answer that is good enough, or else the best one."""
        x, features = self._x, self._project.features
        reviewed = is_reviewed(plan, x.inbound.said(read_hints).cross_check)
        assert self._screening is not None
        self._further = FurtherAnswers(x, self._with, self._outgoing, self._allowance, self._screening.may_quote)
        assurance = Assurance(self._further, features, is_reviewed=reviewed)
        reply, x.answered = await assurance.settle_on(reply)
        x.judgement = assurance.judgement
        return reply

    def _allowance(self) -> Reservation | None:
        """Return what limits a running answer; `None` if the provider enforces the limit or the answer is complete."""
        held, answered = self._settling.reservation, self._x.answered
        if answered is not None and answered.collected is not None and answered.collected.terminated:
            return None
        if held is None or self._settling.bound is None or (held.bound.is_capped and not held.is_lowered):
            return None
        return held

    def _told(self) -> Headers:
        """Return the response headers that report the policy's verdict on the request."""
        header = None if self._screening is None else self._screening.header()
        return () if header is None else (header,)

    def _rate_limits(self) -> Headers:
        return () if self._x.principal is None else self._with.quotas.headers(self._x.principal)

    def _to_answer(self, attempt: Attempt, reply: UpstreamReply) -> Answer:
        x = self._x
        assert x.request is not None
        headers = self._with.provider.response_headers(reply)
        own = self._own if attempt.request_id is not None else (*self._own, self._request_id)
        if x.plan is not None and x.plan.is_managed:
            own = (*own, *route_headers(attempt, x.attempts))
            if x.judgement is not None:
                own = (*own, *check_headers(x.judgement))
        if self._lookup is not None:
            own = (*own, *self._lookup.headers)
        return Answer(
            reply,
            (*merge(headers, self._rate_limits()), *own, *self._told()),
            attempt,
            x.inbound.operation.dialect,
            x.request.strip_usage,
            x.inbound.method == "HEAD",
            self._settling.seal,
            x.capture,
            self._allowance(),
            self._with.config.quota.at_limit,
            x.request.stream and not x.request.strip_usage,
            # A cached answer was scanned by this version of the policy before it was stored, without a finding.
            None if self._screening is None or x.replayed is not None else self._screening.output(),
            x.replayed is not None,
        )
