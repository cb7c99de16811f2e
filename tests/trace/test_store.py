"""What the statements must say; what they do is shown on PostgreSQL in `tests/postgres/test_store.py`."""

import re
from dataclasses import fields
from uuid import UUID

import orjson
import pytest

from proxy.config import schema
from proxy.db.pool import Database
from proxy.errors import DatabaseUnavailable
from proxy.openai.operations import match
from proxy.trace import record, store
from proxy.trace.store import TraceStore
from proxy.trace.stored import Filters, StoredTrace
from tests.trace.exchanges import begun, finished

SETTINGS = schema.Database()


def _names(statement: str, start: str, end: str) -> list[str]:
    listed = statement[statement.index(start) + len(start) : statement.index(end, statement.index(start))]
    return [re.sub(r"::\w+", "", part.split()[0]).rpartition(".")[2] for part in listed.split(",")]


def test_every_key_of_a_record_is_a_column_that_the_statement_reads() -> None:
    read = _names(store._INSERT_TRACES, "AS r(\n", ")\n)")
    x = finished(operation=match("POST", "/v1/responses", False), continues="resp_0")
    assert sorted(read) == sorted(orjson.loads(record.final(x)))


def test_every_column_written_is_in_the_place_of_its_value() -> None:
    columns = _names(store._INSERT_TRACES, "INSERT INTO request_traces (", ")\nSELECT")
    values = store._INSERT_TRACES.partition(")\nSELECT")[2].partition("FROM r")[0]
    values = re.sub(r"coalesce\(r\.(\w+), '\[\]'\) AS \1\b", r"r.\1", values)
    values = values.replace("r.ref AS conversation_ref", "r.conversation_ref")
    values = values.replace("conversation.id AS conversation_id", "r.conversation_id")
    assert re.findall(r"r\.(\w+)", values) == columns


@pytest.mark.parametrize("statement", [store._SELECT_ONE, store._SELECT_PAGE], ids=["one", "page"])
def test_columns_read_back_are_the_fields_in_their_order(statement: str) -> None:
    assert _names(statement, "SELECT", "FROM") == [field.name for field in fields(StoredTrace)]


async def test_store_without_a_database_says_that_it_is_away() -> None:
    traces = TraceStore(Database(SETTINGS), SETTINGS)
    with pytest.raises(DatabaseUnavailable):
        await traces.get(UUID(begun().trace_id))
    with pytest.raises(DatabaseUnavailable):
        await traces.search(Filters(), 1)
    with pytest.raises(DatabaseUnavailable):
        await traces.maintain()
