import asyncio

from proxy.tasks import Background, every


async def test_background_when_stopped_then_loops_end_in_reverse_order():
    ended, background = [], Background()

    def loop(name):
        async def run():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)

        return run

    for name in ("first", "second", "third"):
        background.start(name, loop(name))
    await asyncio.sleep(0)
    await background.stop()
    assert ended == ["third", "second", "first"]


async def test_background_when_a_loop_fails_then_it_is_started_again(monkeypatch, caplog):
    monkeypatch.setattr("proxy.tasks._RESTART_PAUSE_S", 0)
    runs, again, background = [], asyncio.Event(), Background()

    async def loop():
        runs.append(len(runs))
        if len(runs) == 1:
            raise ValueError("secret text")
        again.set()

    background.start("loop", loop)
    await asyncio.wait_for(again.wait(), 2)
    await background.stop()
    assert runs == [0, 1]
    assert "secret text" not in caplog.text


async def test_stop_when_a_cancellation_gets_lost_then_it_comes_again():
    background = Background()
    begun = asyncio.Event()
    lost = []

    async def loop():
        while True:
            try:
                begun.set()
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(1)

    background.start("loop", loop)
    await begun.wait()
    await asyncio.wait_for(background.stop(), 5)
    assert lost == [1]


async def test_every_when_cancelled_then_it_has_acted_at_once_and_again():
    seen = asyncio.Queue()
    task = asyncio.create_task(every(0.001, lambda: seen.put(1)))
    for _ in range(3):
        await asyncio.wait_for(seen.get(), 2)
    task.cancel()
    assert await asyncio.gather(task, return_exceptions=True)
