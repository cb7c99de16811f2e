"""Batches on their way to a collector: when they leave, what is tried again, and what is counted as lost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from proxy.config.otel import Otel
from proxy.trace.otlp import Answer, Outbox, _asked_for
from proxy.trace.protobuf import text
from proxy.upstream.poster import Poster
from tests.fakes.collector import Collector, Said


def spans(count: int, name: str = "s") -> list[bytes]:
    return [text(5, f"{name}{number}") for number in range(count)]


def over_http(settings: Otel) -> Poster:
    return Poster(settings.url or "", ca_file=settings.ca_file, timeout_s=settings.timeout_s)


@contextlib.asynccontextmanager
async def running(post: Any = None, **settings: Any) -> AsyncIterator[Outbox]:
    outbox = Outbox(
        Otel(**{"endpoint": "http://h", "batch_delay_s": 0.02, **settings}),
        over_http if post is None else lambda _: post,
    )
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any, within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


class Post:
    """Answers from a list, the last one for ever; notes how many spans came, and when."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.at: list[float] = []
        self.bodies: list[bytes] = []

    async def post(self, _headers: Mapping[str, str], body: bytes) -> Answer:
        self.at.append(time.monotonic())
        self.bodies.append(body)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def close(self) -> None:
        """Nothing is open."""


async def test_export_when_a_collector_takes_it_then_the_protocol_reads_what_was_meant() -> None:
    with Collector() as collector:
        settings = {
            "endpoint": collector.url,
            "headers": {"api-key": "k"},
            "service_name": "mine",
            "resource_attributes": {"team": "t"},
        }
        async with running(**settings) as outbox:
            outbox.put(spans(3))
            await until(lambda: outbox.exported == 3)
            outbox.follow(Otel(**{**settings, "compression": "gzip", "batch_delay_s": 0.02}))
            outbox.put(spans(2, "t"))
            await until(lambda: outbox.exported == 5)
    first, second = collector.exports
    assert (first.path, first.headers["api-key"]) == ("/v1/traces", "k")
    assert first.resource.items() >= {"service.name": "mine", "team": "t", "telemetry.sdk.language": "python"}.items()
    assert first.message.resource_spans[0].scope_spans[0].scope.name == "sidegate"
    assert [span.name for span in first.spans] == ["s0", "s1", "s2"]
    assert second.headers["Content-Encoding"] == "gzip"
    assert [span.name for span in second.spans] == ["t0", "t1"]


async def test_batch_when_it_is_full_then_it_leaves_at_once_and_the_rest_after_its_time() -> None:
    post = Post(Answer(200))
    async with running(post, batch_spans=4, batch_delay_s=0.3) as outbox:
        began = time.monotonic()
        for _ in range(10):
            outbox.put(spans(1))
        await until(lambda: outbox.exported == 10)
    assert [body.count(b"s0") for body in post.bodies] == [4, 4, 2]
    assert post.at[0] - began < 0.25
    assert not outbox.dropped["queue_full"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_export_when_the_collector_is_busy_then_the_same_again_when_it_asks_for_it(status: int) -> None:
    post = Post(Answer(status, retry_after="0"), Answer(status, retry_after="0"), Answer(200))
    async with running(post) as outbox:
        outbox.put(spans(2))
        await until(lambda: outbox.exported == 2)
    assert len(set(post.bodies)) == 1
    assert len(post.bodies) == 3
    assert set(outbox.dropped.values()) == {0}


async def test_export_when_nobody_says_how_long_then_it_waits_longer_each_time(monkeypatch) -> None:
    monkeypatch.setattr("proxy.trace.otlp._FIRST_PAUSE_S", 0.04)
    post = Post(Answer(0), Answer(503), Answer(200))
    async with running(post) as outbox:
        outbox.put(spans(1))
        await until(lambda: outbox.exported == 1)
    first, second = post.at[1] - post.at[0], post.at[2] - post.at[1]
    assert first >= 0.02
    assert second >= 0.04


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 301])
async def test_export_when_trying_again_cannot_help_then_dropped_and_counted(status: int) -> None:
    post = Post(Answer(status), Answer(200))
    async with running(post) as outbox:
        outbox.put(spans(2))
        await until(lambda: outbox.dropped["refused"] == 2)
        outbox.put(spans(1))
        await until(lambda: outbox.exported == 1)
    assert len(post.bodies) == 2


async def test_export_when_the_collector_stays_away_then_dropped_after_its_time_and_the_queue_is_bounded() -> None:
    post = Post(Answer(503, retry_after="3600"))
    async with running(post, retry_s=0.05, queue_spans=4) as outbox:
        outbox.put(spans(3))
        outbox.put(spans(2))
        assert outbox.dropped["queue_full"] == 2
        await until(lambda: outbox.dropped["unreachable"] == 3)
    samples = {(sample.name, *sample.labels.values()): sample.value for sample in outbox.samples()}
    assert samples == {
        ("sidegate_otel_spans_exported",): 0,
        ("sidegate_otel_spans_dropped", "queue_full"): 2,
        ("sidegate_otel_spans_dropped", "unreachable"): 3,
        ("sidegate_otel_spans_dropped", "refused"): 0,
        ("sidegate_otel_spans_dropped", "rejected"): 0,
        ("sidegate_otel_queue_spans",): 0,
    }


async def test_export_when_part_is_rejected_then_counted_and_not_sent_again(caplog) -> None:
    with Collector(Said(200, rejected=2)) as collector:
        async with running(endpoint=collector.url) as outbox:
            outbox.put(spans(3))
            await until(lambda: outbox.exported == 1)
    assert outbox.dropped["rejected"] == 2
    assert len(collector.exports) == 1
    (record,) = [record for record in caplog.records if record.message == "the collector rejected spans"]
    assert record.reason == "too old"


async def test_flush_when_spans_wait_then_they_leave_now() -> None:
    with Collector(Said(503), Said(200)) as collector:
        async with running(endpoint=collector.url, batch_delay_s=60, retry_s=60) as outbox:
            outbox.put(spans(2))
            await asyncio.sleep(0.05)
            outbox.put(spans(1, "t"))
            began = time.monotonic()
            await outbox.flush()
            assert time.monotonic() - began < 3
    assert len(collector.exports) == 1
    assert outbox.dropped["unreachable"] == 3


async def test_flush_when_the_collector_is_silent_then_it_is_left_behind_in_time() -> None:
    class Never(Post):
        async def post(self, _headers: Mapping[str, str], body: bytes) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    async with running(Never(), timeout_s=0.1) as outbox:
        outbox.put(spans(1))
        await asyncio.sleep(0.05)
        outbox.put(spans(2))
        await outbox.flush()
        assert outbox.dropped["unreachable"] == 2


async def test_connection_when_refused_then_counted_as_no_answer() -> None:
    async with running(endpoint="http://127.0.0.1:1", retry_s=0.01) as outbox:
        outbox.put(spans(1))
        await until(lambda: outbox.dropped["unreachable"] == 1)


def test_retry_after_when_given_in_either_form_then_seconds() -> None:
    assert _asked_for(None) is None
    assert _asked_for("7") == 7
    assert _asked_for("soon") is None
    assert _asked_for("²") is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 < (_asked_for(later) or 0) <= 30
    assert _asked_for(format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)) == 0


def test_samples_when_spans_are_off_then_none() -> None:
    assert list(Outbox(Otel(), over_http).samples()) == []
