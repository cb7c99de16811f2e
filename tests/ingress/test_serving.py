"""One version of the configuration: how its end is known."""

import asyncio
from typing import cast

from proxy.config.schema import Config
from proxy.ingress.serving import OwnApi, Serving
from proxy.pipeline import Pipeline


def serving() -> Serving:
    return Serving(Config(), cast(Pipeline, None), cast(OwnApi, None))


async def test_end_when_nothing_runs_then_it_is_here() -> None:
    await serving().until_over()


async def test_end_when_requests_run_then_it_comes_with_the_last() -> None:
    one = serving()
    one.enter()
    one.enter()
    end = asyncio.create_task(one.until_over())
    await asyncio.sleep(0)
    one.leave()
    await asyncio.sleep(0)
    assert not end.done()
    one.leave()
    await asyncio.wait_for(end, 1)
    assert one.running == 0
