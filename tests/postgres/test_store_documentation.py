import dataclasses
import re
import time
from pathlib import Path
from typing import get_args
from uuid import UUID

import orjson
import pytest

from proxy.config import schema
from proxy.db.pool import Database
from proxy.exchange import Capture, Outcome
from proxy.journal.frames import Kind, Record
from proxy.trace import record
from proxy.trace.store import TraceStore
from proxy.trace.stored import StoredTrace
from tests.trace.exchanges import finished

GUIDE = (Path(__file__).parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sql\n(.*?)```", GUIDE, re.DOTALL)
EMPTY_IN_A_HEALTHY_SYSTEM = ("trace_dead_letters", "req_123")


@pytest.mark.parametrize("statement", EXAMPLES, ids=lambda statement: re.sub(r"\s+", " ", statement)[:40])
async def test_example_of_the_guide_finds_rows(statement: str, database_url: str) -> None:
    database = Database(schema.Database())
    await database.connect(database_url)
    x = finished(time.time_ns() // 1_000_000)
    x.capture = Capture(100, request=b"{}")
    key = UUID(x.trace_id).bytes
    records = [
        Record(Kind.FINAL, key, record.final(x), 0, 0),
        Record(Kind.CONTENT, key, record.content(x, "redacted") or b"", 0, 0),
    ]
    async with database.transaction() as connection:
        await TraceStore(database, schema.Database()).apply(connection, records)
        found = await connection.fetch(statement)
    await database.close()
    assert found or any(name in statement for name in EMPTY_IN_A_HEALTHY_SYSTEM)


def test_guide_names_every_field_call_member_and_outcome() -> None:
    named = set(re.findall(r"`(\w+)`", GUIDE))
    fields = {re.sub(r"_(\w)", lambda part: part[1].upper(), field.name) for field in dataclasses.fields(StoredTrace)}
    members = orjson.loads(record.final(finished()))["llm_calls"][0].keys()
    assert named >= fields | set(members) | set(get_args(Outcome))
