from collections.abc import AsyncIterator

import pytest

from proxy.upstream.poster import Poster
from tests.fakes.collector import Collector, Said


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    with Collector(Said(503, {"Retry-After": "7"}), Said(200, rejected=1)) as running:
        yield running


async def test_post_when_answered_then_status_body_and_the_wait_that_is_asked_for(collector: Collector) -> None:
    poster = Poster(f"{collector.url}/v1/traces", ca_file=None, timeout_s=5)
    headers = {"Content-Type": "application/x-protobuf"}
    assert await poster.post(headers, b"") == (503, b"", "7")
    status, body, wait = await poster.post(headers, b"")
    assert (status, wait) == (200, None)
    assert b"too old" in body
    assert [export.path for export in collector.exports] == ["/v1/traces"] * 2
    await poster.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "https://127.0.0.1:1/x"])
async def test_post_when_nobody_is_there_then_no_answer(url: str) -> None:
    poster = Poster(url, ca_file=None, timeout_s=1)
    assert await poster.post({}, b"x") == (0, b"", None)
    assert await poster.post({"bad": "line\nend"}, b"x") == (0, b"", None)
    await poster.close()


def test_poster_when_certificates_cannot_be_read_then_os_error() -> None:
    with pytest.raises(OSError):
        Poster("https://h/x", ca_file="/nowhere/ca.pem", timeout_s=1)
