"""The way to the table that replicas share, with a table that fails."""

import asyncio

from proxy.cache.request_key import RequestKey
from proxy.cache.sharing import Sharing
from proxy.cache.store import Row
from proxy.errors import DatabaseUnavailable, RecordRejected

KEY = RequestKey(b"k" * 32, "shop", stream=False, wants_usage=False, has_bare=True, dialect="chat")
ROW = Row("whole", "application/json", b"{}", True)


class Table:
    def __init__(self, *, is_up=True, error=None):
        self.is_up, self.error = is_up, error
        self.put_rows, self.trims = [], 0

    def _fail(self):
        if self.error is not None:
            raise self.error

    async def get(self, digest, forms, project_id):
        self._fail()
        return [ROW]

    async def put(self, digest, project_id, row):
        self._fail()
        self.put_rows.append((digest, project_id, row))

    async def trim(self):
        self._fail()
        self.trims += 1


async def test_get_when_the_table_answers_or_not_then_rows_or_a_counted_miss():
    assert await Sharing(Table()).get(KEY, ("whole",)) == [ROW]
    failing = Sharing(Table(error=DatabaseUnavailable("away")))
    assert (await failing.get(KEY, ("whole",)), failing.failures) == ((), 1)
    away = Sharing(Table(is_up=False, error=AssertionError("asked")))
    assert (await away.get(KEY, ("whole",)), away.failures) == ((), 0)


async def run_until(sharing, condition):
    task = asyncio.create_task(sharing.run())
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_run_when_answers_are_offered_then_they_are_written_and_the_table_is_trimmed():
    table = Table()
    sharing = Sharing(table)
    sharing.offer(KEY, ROW)
    await run_until(sharing, lambda: table.put_rows and table.trims)
    assert (table.put_rows, table.trims, sharing.failures) == ([(KEY.digest, "shop", ROW)], 1, 0)


async def test_run_when_answers_never_cease_then_the_table_is_trimmed_all_the_same():
    class Busy(Table):
        async def put(self, *facts):
            await asyncio.sleep(0)
            sharing.offer(KEY, ROW)

    table = Busy()
    sharing = Sharing(table)
    sharing.offer(KEY, ROW)
    sharing.offer(KEY, ROW)
    await run_until(sharing, lambda: table.trims)


async def test_run_when_writing_fails_then_it_is_counted_and_goes_on():
    sharing = Sharing(Table(error=RecordRejected("no such project")))
    sharing.offer(KEY, ROW)
    sharing.offer(KEY, ROW)
    await run_until(sharing, lambda: sharing.failures == 3)  # two answers and a trim


def test_offer_when_too_many_wait_then_the_answer_stays_here():
    sharing = Sharing(Table())
    for _ in range(40):
        sharing.offer(KEY, ROW)
    assert sharing.failures == 8
