import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.config.schema import Metrics as Settings
from proxy.config.upstreams import UpstreamEntry
from proxy.errors import Overloaded
from proxy.exchange import Attempt, Candidate, Charge, Exchange, Inbound, Operation, Principal, Usage
from proxy.metrics import Metrics, Sample

OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
CHAT = Operation("chat.completions.create", "chat", "json", "chat", billable=True)


def finished(model="gpt-4o", *, status=200, source="provider", error=None):
    x = Exchange("id", 0, 100.0, Inbound("POST", "/v1/x", "/v1/x", (), {}, CHAT, None, None, True), error=error)
    attempt = Attempt(0, Candidate("openai", model), 100.25, ended=100.5, status=status)
    x.attempts.append(attempt)
    x.charges = (Charge(Usage(input_tokens=10, output_tokens=5), source, 2_000_000, priced=source == "provider"),)
    x.delivery.status, x.delivery.committed_at = status, 100.5
    x.outcome, x.ended = "ok", 101.0
    return x


def gen_ai(model, **facts):
    x = finished(model, **facts)
    x.inbound.operation = replace(CHAT, gen_ai_operation="chat")
    return x


def scrape(metrics):
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def test_observe_when_an_exchange_ended_then_every_figure_is_derived_from_it():
    metrics = Metrics(max_models=10)
    metrics.observe(finished())
    samples = scrape(metrics)
    request = {"operation": "chat.completions.create", "stream": "false"}
    assert value(samples, "sidegate_requests_total", outcome="ok", status="200", **request) == 1
    assert value(samples, "sidegate_request_duration_seconds_bucket", le="1.0", **request) == 1
    assert value(samples, "sidegate_request_duration_seconds_bucket", le="0.5", **request) == 0
    assert value(samples, "sidegate_request_duration_seconds_sum", **request) == 1.0
    assert value(samples, "sidegate_time_to_first_byte_seconds_bucket", le="0.5", stream="false") == 1
    assert value(samples, "sidegate_overhead_seconds_sum") == 0.75
    assert value(samples, "sidegate_upstream_attempts_total", upstream="openai", status="2xx", error="") == 1
    assert value(samples, "sidegate_tokens_total", model="gpt-4o", type="output", source="provider") == 5
    assert value(samples, "sidegate_cost_dollars_total", model="gpt-4o") == 0.002


def test_observe_when_many_calls_cost_something_then_their_sum_is_exact_whatever_the_source():
    metrics = Metrics(max_models=10)
    for source in ("provider", "provider", "estimated"):
        x = finished(source=source)
        x.charges[0].cost_nanos = 100_000_000
        metrics.observe(x)
    assert value(scrape(metrics), "sidegate_cost_dollars_total", model="gpt-4o") == 0.3


def test_observe_when_figures_are_part_of_an_estimate_then_only_the_rest_is_estimated():
    metrics = Metrics(max_models=10)
    x = finished(source="estimated")
    x.charges = (replace(x.charges[0], told=Usage(10, 2)),)
    metrics.observe(x)
    samples, of = scrape(metrics), {"model": "gpt-4o"}
    assert value(samples, "sidegate_tokens_total", type="input", source="provider", **of) == 10
    assert value(samples, "sidegate_tokens_total", type="input", source="estimated", **of) == 0
    assert value(samples, "sidegate_tokens_total", type="output", source="provider", **of) == 2
    assert value(samples, "sidegate_tokens_total", type="output", source="estimated", **of) == 3
    assert "sidegate_usage_disbelieved_total" not in dict(samples)


def test_observe_when_figures_were_not_believed_then_they_are_counted_as_such_alone():
    metrics = Metrics(max_models=10)
    x = finished(source="estimated")
    x.charges = (replace(x.charges[0], told=Usage(10**9, 2)),)
    metrics.observe(x)
    samples = scrape(metrics)
    assert value(samples, "sidegate_usage_disbelieved_total", upstream="openai") == 1
    assert value(samples, "sidegate_tokens_total", type="output", source="estimated", model="gpt-4o") == 5


def test_observe_when_figures_are_beyond_the_reservation_then_their_provider_is_counted():
    metrics = Metrics(max_models=10)
    x = finished()
    metrics.observe(x)
    assert "sidegate_usage_beyond_reservation_total" not in dict(scrape(metrics))
    x.charges = (replace(x.charges[0], is_beyond=True),)
    metrics.observe(x)
    assert value(scrape(metrics), "sidegate_usage_beyond_reservation_total", upstream="openai") == 1


def test_observe_when_nothing_was_billable_then_no_tokens_are_counted():
    metrics = Metrics(max_models=10)
    metrics.observe(finished(source="none"))
    assert not [name for name, _ in scrape(metrics) if name.startswith("sidegate_tokens_total")]


def test_observe_when_models_are_many_then_series_stay_bounded():
    metrics = Metrics(max_models=3)
    for index in range(500):
        metrics.observe(finished(f"model-{index}"))
    models = {dict(labels)["model"] for name, labels in scrape(metrics) if name == "sidegate_cost_dollars_total"}
    assert models == {"model-0", "model-1", "model-2", "other"}


def test_observe_when_statuses_are_odd_then_they_are_counted_by_class():
    metrics = Metrics(max_models=3)
    for status in range(200, 600):
        metrics.observe(finished(status=status))
    statuses = {dict(labels)["status"] for name, labels in scrape(metrics) if name == "sidegate_requests_total"}
    assert "418" not in statuses
    assert "4xx" in statuses
    assert len(statuses) < 25


def test_observe_when_labels_hold_odd_text_then_the_exposition_stays_one_line_per_sample():
    metrics = Metrics(max_models=3)
    metrics.observe(finished('a"b\\c\nd{x="y"} 1'))
    scrape(metrics)
    assert all(re.match(r"(#|sidegate_)", line) for line in metrics.render().decode().splitlines() if line)


def test_errors_when_counted_then_code_and_source_tell_them_apart():
    metrics = Metrics(max_models=3)
    metrics.count_error(Overloaded("full", code="too_many_connections"))
    metrics.observe(finished(error=Overloaded("full")))
    samples = scrape(metrics)
    assert value(samples, "sidegate_errors_total", code="too_many_connections", source="sidegate") == 1
    assert value(samples, "sidegate_errors_total", code="server_overloaded", source="sidegate") == 1


def test_samples_when_read_at_scrape_then_they_are_the_values_of_that_moment():
    metrics, state = Metrics(max_models=3), {"depth": 1}
    metrics.at_scrape(
        lambda: [
            Sample("gauge", "sidegate_depth", "Depth.", {}, state["depth"]),
            Sample("counter", "sidegate_drops", "Drops.", {"reason": "space"}, 2),
            Sample("counter", "sidegate_drops", "Drops.", {"reason": "disk"}, 3),
        ]
    )
    state["depth"] = 7
    samples = scrape(metrics)
    assert value(samples, "sidegate_depth") == 7
    assert value(samples, "sidegate_drops_total", reason="disk") == 3


def test_gen_ai_when_wanted_then_calls_are_also_counted_under_the_names_of_opentelemetry():
    metrics = Metrics(max_models=2)
    upstreams = (UpstreamEntry(name="openai"), UpstreamEntry(name="a", kind="azure", api_version="1"))
    metrics.observe(gen_ai("before"))
    metrics.follow(Settings(gen_ai=True, max_models=3), upstreams)
    metrics.observe(gen_ai("gpt-4o"))
    metrics.observe(gen_ai("gpt-4o", status=503, source="none"))
    metrics.observe(gen_ai("gpt-4o", source="estimated"))
    metrics.observe(finished("an operation that is none of theirs"))
    samples = scrape(metrics)
    call = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-4o"}
    duration = "gen_ai_client_operation_duration_seconds"
    assert value(samples, f"{duration}_count", error_type="", **call) == 2
    assert value(samples, f"{duration}_sum", error_type="5xx", **call) == 0.25
    assert value(samples, f"{duration}_bucket", error_type="", le="0.32", **call) == 2
    assert value(samples, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **call) == 10
    assert value(samples, "gen_ai_client_token_usage_bucket", gen_ai_token_type="output", le="4.0", **call) == 0
    bounds = [dict(labels)["le"] for name, labels in samples if name == "gen_ai_client_token_usage_bucket"]
    assert {"1.0", "4.0", "67108864.0", "+Inf"} <= set(bounds)
    metrics.follow(Settings(), upstreams)
    assert not [name for name, _ in scrape(metrics) if name.startswith("gen_ai")]


@pytest.mark.parametrize("wanted", [False, True])
def test_series_when_users_and_models_are_ten_thousand_then_no_more_than_documented(wanted):
    metrics = Metrics(max_models=100)
    metrics.follow(Settings(gen_ai=wanted), (UpstreamEntry(name="openai"),))
    counts = []
    for number in range(10_000):
        x = gen_ai(f"model-{number}", status=200 + number % 400)
        x.principal = Principal(f"user-{number}", f"project-{number}", "header")
        x.attempts[0].meter.response_model = f"dated-{number}"
        metrics.observe(x)
        if number in (999, 9999):
            counts.append(len(scrape(metrics)))
    assert counts[0] == counts[1]
    bounds = re.findall(r"some (\d+) series.* (\d+) for each model.*, (\d+) more", OPERATIONS.replace("\n", " "))
    fixed, each, more = map(int, bounds[0])
    assert counts[1] <= fixed + (each + wanted * (more + 17 * 3)) * (100 + 2)
