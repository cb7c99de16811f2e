"""Prometheus metrics: everything known about an exchange is derived here, once, at its end.

Rule of the file: label values come from closed sets (operations, outcomes, configured names) or are capped (`model`),
so the number of series is bounded whatever clients send. Users, projects and keys are never labels.

Values are stored in plain dicts and passed to prometheus_client when Prometheus scrapes. The library's own counters
take a lock and a label look-up each time, which was an eighth of a request's CPU (`make bench`); there is one thread
here.

Source: prometheus_client, "Custom Collectors"; OpenTelemetry GenAI metrics for the choice of figures.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.config.schema import Metrics as Settings
from proxy.config.upstreams import UpstreamEntry
from proxy.credentials import resembles_credential
from proxy.errors import ProxyError
from proxy.exchange import Attempt, Charge, Exchange, Judgement, Usage
from proxy.nouns.findings import Verdict

_DURATION_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_OVERHEAD_BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2)
_GEN_AI_SECONDS = tuple(0.01 * 2**power for power in range(14))
_GEN_AI_TOKENS = tuple(4**power for power in range(14))
"""The bounds that the conventions require."""
_USUAL = (101, 200, 201, 400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_USUAL_STATUSES: dict[int | None, str] = {status: str(status) for status in _USUAL}
_CLASSES = ("none", *(f"{hundred}xx" for hundred in range(1, 10)))
_RULE_OF_PROJECT = re.compile(r"(?:keyword|pattern)-[0-9a-f]{8}")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[object, ...]


class Sample(NamedTuple):
    """One value read at scrape time. `kind`: counter or gauge."""

    kind: str
    name: str
    help: str
    labels: dict[str, str]
    value: float


class Tally:
    """A counter family. `values`: by labels in the order of their names; to count is `values[labels] += 1`."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.values: defaultdict[Labels, float] = defaultdict(float)

    def collect(self) -> Metric:
        """Return the current values."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric([str(label) for label in labels], value)
        return family


class Distribution:
    """A histogram family. Each series: one count per bucket, the last above all bounds, and the sum."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name, self._text, self._bounds, self._labels = name, text, bounds, labels
        self._series: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Count `value` in the series of `labels`."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = [0.0] * (len(self._bounds) + 2)
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def collect(self) -> Metric:
        """Return the current values; buckets are cumulative, as in Prometheus."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for labels, series in self._series.items():
            total, buckets = 0.0, []
            for name, count in zip(names, series, strict=False):
                total += count
                buckets.append((name, total))
            family.add_metric([str(label) for label in labels], buckets, series[-1])
        return family


class Spending:
    """Tokens and cost by model and by the source of the figures; counted with one look-up, exported as two families."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        """By model and source: input tokens, output tokens, nano-dollars."""

    def collect(self) -> tuple[Metric, Metric]:
        """Return the current values."""
        tokens = CounterMetricFamily("sidegate_tokens", "Tokens settled.", labels=("model", "type", "source"))
        cost = CounterMetricFamily("sidegate_cost_dollars", "Cost settled.", labels=("model",))
        by_model: Counter[str] = Counter()
        for (model, source), (sent, made, nanos) in self.values.items():
            tokens.add_metric((model, "input", source), sent)
            tokens.add_metric((model, "output", source), made)
            by_model[model] += nanos
        for model, nanos in by_model.items():
            cost.add_metric((model,), nanos / 1e9)
        return tokens, cost


class _AtScrape(Collector):
    """Exports values that are stored elsewhere."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Name nothing in advance: the values may not exist yet at registration."""
        return iter(())

    def collect(self) -> Iterable[Metric]:
        """Return the current values."""
        return self._read()


class Metrics:
    """All metric families of one process, in their own registry."""

    def __init__(self, max_models: int) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = 0
        """Running requests; counted by the ingress."""
        self.finished = 0
        """Finished requests that were observed."""
        self.loop_lag_s = 0.0
        """Delay of the event loop's latest timer."""
        self._models: set[str] = set()
        self._max_models = max_models
        self._gen_ai_providers: dict[str, str] = {}
        """By upstream; empty if OpenTelemetry names are off."""
        self._requests = Tally("sidegate_requests", "Finished requests.", "operation", "outcome", "status", "stream")
        self._duration = Distribution(
            "sidegate_request_duration_seconds",
            "From the request's head to the answer's end.",
            _DURATION_BOUNDS,
            "operation",
            "stream",
        )
        self._first_byte = Distribution(
            "sidegate_time_to_first_byte_seconds",
            "From the request's head to the first byte sent to the client.",
            _DURATION_BOUNDS,
            "stream",
        )
        self._overhead = Distribution(
            "sidegate_overhead_seconds", "Request time minus the time spent with providers.", _OVERHEAD_BOUNDS
        )
        self._attempts = Tally(
            "sidegate_upstream_attempts",
            "Attempts at providers; `status` is a class such as 2xx, or `none` if no answer came.",
            "upstream",
            "status",
            "error",
        )
        self._spent = Spending()
        self._layers = Tally(
            "sidegate_layer_attempts",
            "Attempts at models of a layer; `why` is first, retry, fallback, escalate, review or arbitrate.",
            "layer",
            "upstream",
            "why",
        )
        self._layer_cost = Tally("sidegate_layer_cost_dollars", "Cost settled by layer.", "layer")
        self._checks = Tally(
            "sidegate_answer_checks",
            "Answers that were checked before they left; `because`: why unchecked, or why a weak one was delivered.",
            "result",
            "because",
        )
        self._escalations = Tally("sidegate_escalations", "Answers replaced by one of a higher layer.", "because")
        self._cross_checks = Tally("sidegate_cross_checks", "Answers with a second opinion.", "result", "because")
        self._unpriced = Tally("sidegate_unpriced_calls", "Billable calls of models without a price.")
        self._disbelieved = Tally(
            "sidegate_usage_disbelieved", "Calls whose provider told more tokens than any call can use.", "upstream"
        )
        self._beyond = Tally(
            "sidegate_usage_beyond_reservation",
            "Calls whose provider told, and was believed, more tokens than were reserved.",
            "upstream",
        )
        self._errors = Tally(
            "sidegate_errors",
            "Errors that Sidegate itself gave or noted, limits that were hit among them; `source` says whose fault.",
            "code",
            "source",
        )
        self._findings = Tally(
            "sidegate_policy_findings",
            "What the policy found; `rule` is `project` for the rules of a project.",
            "direction",
            "rule",
            "action",
        )
        self._unscanned = Tally("sidegate_policy_unscanned", "Parts that could not be scanned.", "direction", "reason")
        self._hurried = Tally("sidegate_policy_hurried", "Events sent without their undecided end.", "reason")
        self._faults = Tally("sidegate_policy_faults", "Scans that failed.")
        named = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self._gen_ai_duration = Distribution(
            "gen_ai_client_operation_duration_seconds", "Time of a call.", _GEN_AI_SECONDS, *named, "error_type"
        )
        self._gen_ai_tokens = Distribution(
            "gen_ai_client_token_usage", "Tokens of a call.", _GEN_AI_TOKENS, *named, "gen_ai_token_type"
        )
        self.registry.register(_AtScrape(self._collect))

    def follow(self, settings: Settings, upstreams: Sequence[UpstreamEntry]) -> None:
        """Apply a changed configuration. Counts are kept."""
        self._max_models = settings.max_models
        self._gen_ai_providers = {one.name: one.gen_ai_provider for one in upstreams} if settings.gen_ai else {}

    def at_scrape(self, read: Callable[[], Iterable[Sample]]) -> None:
        """Add values that are read when Prometheus scrapes."""
        self.registry.register(_AtScrape(lambda: _families(read())))

    def render(self) -> bytes:
        """Return the text exposition."""
        return generate_latest(self.registry)

    def observe(self, x: Exchange) -> None:
        """Count one finished exchange. Cost about 4 microseconds."""
        ended = x.ended if x.ended is not None else x.started
        operation = x.inbound.operation.name
        stream = "true" if x.request is not None and x.request.stream else "false"
        total_s = ended - x.started
        self.finished += 1
        self._requests.values[operation, x.outcome or "none", _status_label(x.delivery.status), stream] += 1
        self._duration.observe((operation, stream), total_s)
        if x.delivery.committed_at is not None:
            self._first_byte.observe((stream,), x.delivery.committed_at - x.started)
        busy_s = 0.0
        for attempt in x.attempts:
            busy_s += (attempt.ended or ended) - attempt.started
        self._overhead.observe((), total_s - busy_s if total_s > busy_s else 0.0)
        if x.error is not None:
            self.count_error(x.error)
        for attempt, charge in zip(x.attempts, x.charges, strict=False):
            self._observe_attempt(attempt, charge)
            if self._gen_ai_providers and x.inbound.operation.gen_ai_operation:
                self._observe_gen_ai(x.inbound.operation.gen_ai_operation, attempt, charge, ended)
        if x.verdict is not None:
            self._observe_verdict(x.verdict)
        if x.judgement is not None:
            self._observe_judgement(x.judgement)

    def count_error(self, error: ProxyError) -> None:
        """Count an error by its code; codes are a closed set."""
        self._errors.values[error.code or "none", error.source] += 1

    def _observe_judgement(self, judgement: Judgement) -> None:
        if judgement.check is not None:
            self._checks.values[judgement.check, judgement.because or ""] += 1
        for escalated in judgement.escalated:
            self._escalations.values[escalated.because,] += 1
        if judgement.cross_check is not None:
            self._cross_checks.values[judgement.cross_check, judgement.cross_because or ""] += 1

    def _observe_verdict(self, verdict: Verdict) -> None:
        if not (verdict.counts or verdict.missed or verdict.hurried or verdict.faults):
            return  # nearly always
        for (direction, rule_id, action), count in verdict.counts.items():
            rule = "project" if _RULE_OF_PROJECT.fullmatch(rule_id) else rule_id
            self._findings.values[direction, rule, action] += count
        for labels, count in verdict.missed.items():
            self._unscanned.values[labels] += count
        for reason, count in verdict.hurried.items():
            self._hurried.values[reason,] += count
        if verdict.faults:
            self._faults.values[()] += verdict.faults

    def _observe_attempt(self, attempt: Attempt, charge: Charge) -> None:
        status = _CLASSES[(attempt.status or 0) // 100]
        error = (attempt.error.code or "unknown") if attempt.error is not None else attempt.failure or ""
        self._attempts.values[attempt.candidate.upstream, status, error] += 1
        if attempt.candidate.layer is not None:
            self._layers.values[attempt.candidate.layer, attempt.candidate.upstream, attempt.why] += 1
            self._layer_cost.values[attempt.candidate.layer,] += charge.cost_nanos / 1e9
        if charge.usage_source == "none":
            return
        model = self._model_label(attempt.used.response_model or attempt.candidate.model)
        spent = self._spent.values[model, charge.usage_source]
        spent[0] += charge.usage.input_tokens
        spent[1] += charge.usage.output_tokens
        spent[2] += charge.cost_nanos
        if charge.is_beyond:
            self._beyond.values[attempt.candidate.upstream,] += 1
        if charge.told is not None:
            self._observe_told(attempt, model, charge.usage, charge.told)
        if not charge.priced:
            self._unpriced.values[()] += 1

    def _observe_told(self, attempt: Attempt, model: str, usage: Usage, told: Usage) -> None:
        """Only what goes beyond the provider's own figures is an estimate."""
        known = (told.input_tokens, told.output_tokens)
        if known[0] > usage.input_tokens or known[1] > usage.output_tokens:
            self._disbelieved.values[attempt.candidate.upstream,] += 1
            return
        of_provider, of_estimates = self._spent.values[model, "provider"], self._spent.values[model, "estimated"]
        for kind, tokens in enumerate(known):
            of_provider[kind] += tokens
            of_estimates[kind] -= tokens

    def _observe_gen_ai(self, operation: str, attempt: Attempt, charge: Charge, ended: float) -> None:
        provider = self._gen_ai_providers.get(attempt.candidate.upstream, "openai")
        model = self._model_label(attempt.candidate.model)
        error = "" if attempt.error is None else attempt.error.code or "unknown"
        if not error and (attempt.status or 0) >= 400:
            error = _CLASSES[(attempt.status or 0) // 100]
        self._gen_ai_duration.observe((operation, provider, model, error), (attempt.ended or ended) - attempt.started)
        if charge.usage_source == "provider":
            self._gen_ai_tokens.observe((operation, provider, model, "input"), charge.usage.input_tokens)
            self._gen_ai_tokens.observe((operation, provider, model, "output"), charge.usage.output_tokens)

    def _model_label(self, model: str | None) -> str:
        if model is None:
            return "none"
        if model not in self._models:
            if len(self._models) >= self._max_models or resembles_credential(model):
                return "other"
            self._models.add(model)
        return model

    def _collect(self) -> Iterator[Metric]:
        for family in (
            self._requests, self._duration, self._first_byte, self._overhead, self._attempts,
            self._unpriced, self._disbelieved, self._beyond, self._errors, self._findings, self._unscanned,
            self._hurried, self._faults, self._layers, self._layer_cost, self._checks, self._escalations,
            self._cross_checks,
        ):  # fmt: skip
            yield family.collect()
        yield from self._spent.collect()
        if self._gen_ai_providers:
            yield from (self._gen_ai_duration.collect(), self._gen_ai_tokens.collect())
        yield GaugeMetricFamily("sidegate_requests_in_flight", "Requests being handled.", self.in_flight)
        yield GaugeMetricFamily("sidegate_event_loop_lag_seconds", "Delay of the latest timer.", self.loop_lag_s)


def _families(samples: Iterable[Sample]) -> Iterable[Metric]:
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for sample in samples:
        family = families.get(sample.name)
        if family is None:
            make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
            family = families[sample.name] = make(sample.name, sample.help, labels=tuple(sample.labels))
        family.add_metric(tuple(sample.labels.values()), sample.value)
    return families.values()


def _status_label(status: int | None) -> str:
    return _USUAL_STATUSES.get(status) or _CLASSES[(status or 0) // 100]
