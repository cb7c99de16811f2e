"""The client library of Prometheus, which is not used itself, is the judge: it renders and reads the same."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from proxy import exposition

VALUES = [0.0, 1, 0.1, 12.5, 999999.0, 1234567.0, 12345678.25, 1e15, 1e16, 1e22, -3.5, 1e-9, float("inf"), float("nan")]
TEXTS = ["", "plain", 'quotes "here"', "a\\b", "two\nlines", "größe 键", "{}, ="]


class Fixed:
    def __init__(self, *families):
        self.families = families

    def describe(self):
        return []

    def collect(self):
        return self.families


def by_library(*families):
    registry = CollectorRegistry()
    registry.register(Fixed(*families))
    return generate_latest(registry)


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_render_when_counters_and_gauges_then_it_is_what_the_library_renders(text: str) -> None:
    count, level = CounterMetricFamily("a", text, labels=["z", "b"]), GaugeMetricFamily("g", text, labels=["of"])
    series = []
    for value in VALUES:
        labels = [text, str(value)]
        count.add_metric(labels, value)
        level.add_metric([text], value)
        series.append((list(zip(("z", "b"), labels, strict=True)), value))
    ours = exposition.counter("a", text, series), exposition.gauge("g", text, [([("of", text)], v) for v in VALUES])
    assert exposition.render(ours) == by_library(count, level)


def test_render_when_histograms_then_buckets_add_up_as_in_the_library() -> None:
    bounds, counts = (0.005, 1, 2.5, 4096, 16777216), [1.0, 0.0, 3.0, 2.0, 0.0, 7.0]
    names, buckets, total = [*map(repr, map(float, bounds)), "+Inf"], [], 0.0
    for name, count in zip(names, counts, strict=True):
        total += count
        buckets.append((name, total))
    family = HistogramMetricFamily("h", "How long.", labels=["op"])
    family.add_metric(["chat"], buckets, 9.25)
    rendered = exposition.render([exposition.histogram("h", "How long.", bounds, [([("op", "chat")], counts, 9.25)])])
    expected = [one.samples for one in text_string_to_metric_families(by_library(family).decode())]
    assert [one.samples for one in text_string_to_metric_families(rendered.decode())] == expected


def test_render_when_there_are_no_labels_then_none_are_written() -> None:
    assert exposition.render([exposition.gauge("g", "Now.", [((), 3)])]) == b"# HELP g Now.\n# TYPE g gauge\ng 3.0\n"


def test_counter_when_its_name_ends_as_it_must_then_nothing_is_added() -> None:
    assert exposition.counter("a_total", "", []) == exposition.counter("a", "", [])


def test_server_when_imported_then_no_other_web_server_is() -> None:
    script = (
        "import proxy.serve, sys; print(*{'prometheus_client', 'http.server', 'urllib.request'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
