from dataclasses import fields

import asyncpg

from proxy.trace.stored import StoredTrace


async def test_stored_trace_has_a_field_for_every_column_of_the_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute "
        "WHERE attrelid = 'request_traces'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    await connection.close()
    assert {row["attname"] for row in rows} == {field.name for field in fields(StoredTrace)}
