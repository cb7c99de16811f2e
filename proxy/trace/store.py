"""Traces in PostgreSQL: all SQL of `request_traces`, `trace_contents` and `trace_dead_letters`.

Writing: the JSON bodies of a batch are joined into one array and unpacked by the server, one statement per table, and
the ids of new rows are returned as one byte string, so there is no Python work per row. Through `ON CONFLICT DO NOTHING
.. RETURNING` a replay changes nothing, and it is known which rows were new: everything else that is computed from a
batch must start from those. A body that PostgreSQL refuses fails its whole statement; the journal's writer then finds
the record and passes it to `dead_letter`. One whose charge was made nevertheless counts as stored from then on.

Reading: an id contains the time of its trace and so determines its partition; pages are sorted by id, newest first.

Rule of the file: every statement is a constant; values are parameters. Failure mode: errors of asyncpg pass through and
become `DatabaseUnavailable` or `RecordRejected` where the connection came from (`db.pool`).

Source: PostgreSQL "INSERT", "JSON Functions", "Table Partitioning" (pruning).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from proxy.config import schema
from proxy.db.pool import Connections, describe
from proxy.journal.frames import CONTENT, FINAL, Kind, Record
from proxy.trace.record import created_at
from proxy.trace.stored import Filters, Letter, Page, StoredTrace

# Conversations are looked up in the order of their names, so that two writers cannot deadlock.
_READ_TRACES = """ AS r(
        id uuid, created_at timestamptz, conversation_ref text, request_type text, operation text, method text,
        path text, user_id text, project_id text, model text, response_model text, upstream text, stream boolean,
        status integer, outcome text, input_tokens bigint, cached_input_tokens bigint, output_tokens bigint,
        reasoning_tokens bigint, usage_source text, total_cost numeric, total_duration_ms double precision,
        first_byte_ms double precision, upstream_ms double precision, overhead_ms double precision,
        request_bytes bigint, response_bytes bigint, upstream_request_id text, routing_decisions jsonb,
        llm_calls jsonb, tool_calls jsonb, error_info jsonb, phases jsonb, client jsonb,
        quota jsonb, policy jsonb, previous_response_id text, response_id text)
), chain AS MATERIALIZED (
    SELECT * FROM sidegate_chains((
        SELECT jsonb_agg(linked) FROM (
            SELECT created_at, project_id, user_id, conversation_ref, previous_response_id, response_id FROM told
            WHERE previous_response_id IS NOT NULL OR (response_id IS NOT NULL AND conversation_ref IS NOT NULL)
        ) AS linked
    ))
), r AS MATERIALIZED (
    SELECT told.*, coalesce(belongs_to, conversation_ref) AS ref
    FROM told LEFT JOIN chain ON continued = previous_response_id AND of_project = coalesce(project_id, '')
), conversation AS MATERIALIZED (
    SELECT ref, project_id, sidegate_conversation(ref, project_id, user_id, seen) AS id
    FROM (
        SELECT ref, project_id, min(user_id) AS user_id, min(created_at) AS seen
        FROM r WHERE ref IS NOT NULL
        GROUP BY ref, project_id ORDER BY ref, project_id
    ) AS distinct_reference
"""
_COLUMNS = """
    id, created_at, conversation_id, conversation_ref, request_type, operation, method, path, user_id, project_id,
    model, response_model, upstream, stream, status, outcome, input_tokens, cached_input_tokens, output_tokens,
    reasoning_tokens, usage_source, total_cost, total_duration_ms, first_byte_ms, upstream_ms, overhead_ms,
    request_bytes, response_bytes, upstream_request_id, routing_decisions, llm_calls, tool_calls, error_info, phases,
    client, quota, policy
"""
_ONE_ROW = ", ".join("sift_one." + name.strip() for name in _COLUMNS.split(","))
_ROWS = """
SELECT
    r.id, r.created_at, conversation.id AS conversation_id, r.ref AS conversation_ref, r.request_type, r.operation,
    r.method, r.path, r.user_id, r.project_id, r.model, r.response_model, r.upstream, r.stream, r.status, r.outcome,
    r.input_tokens, r.cached_input_tokens, r.output_tokens, r.reasoning_tokens, r.usage_source, r.total_cost,
    r.total_duration_ms, r.first_byte_ms, r.upstream_ms, r.overhead_ms, r.request_bytes, r.response_bytes,
    r.upstream_request_id, coalesce(r.routing_decisions, '[]') AS routing_decisions,
    coalesce(r.llm_calls, '[]') AS llm_calls, coalesce(r.tool_calls, '[]') AS tool_calls, r.error_info, r.phases,
    r.client, r.quota, r.policy
FROM r LEFT JOIN conversation
    ON conversation.ref = r.ref AND conversation.project_id IS NOT DISTINCT FROM r.project_id
WHERE NOT EXISTS (SELECT FROM trace_dead_letters AS letter WHERE letter.trace_id = r.id AND letter.charged)
"""
_INSERT_TRACES = "".join(
    (
        "WITH told AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(convert_from($1::bytea, 'UTF8')::jsonb)",
        _READ_TRACES,
        "), stored AS (INSERT INTO request_traces (",
        _COLUMNS,
        ")",
        _ROWS,
        "ON CONFLICT DO NOTHING RETURNING id) SELECT string_agg(uuid_send(id), '') FROM stored",
    )
)

# Each row as if it came alone: whatever becomes of it is undone. Three times, as a trigger may refuse rows at random
# (its service fails, or its lock is taken): asked once, and once more before the burial, one of a hundred innocent
# rows would be buried where a tenth is refused. The division ends the statement before the triggers that run behind
# it: those that count would take thirty times as long as the row. A `DO` takes and returns nothing, hence the
# settings.
_SIFT_BATCH = "SELECT set_config('sidegate.sift_batch', $1, true)"
_SIFT = "".join(
    (
        """
DO $sift$
DECLARE
    sift_one record;
    sift_refused jsonb = '[]';
    sift_state text;
    sift_table text;
    sift_column text;
    sift_constraint text;
BEGIN
FOR sift_one IN
WITH told AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(current_setting('sidegate.sift_batch')::jsonb)
""",
        _READ_TRACES,
        ")",
        _ROWS,
        """
LOOP
    FOR sift_time IN 1..3 LOOP
        BEGIN
            WITH stored AS (INSERT INTO request_traces (
""",
        _COLUMNS,
        """
            ) VALUES (
""",
        _ONE_ROW,
        """
            ) ON CONFLICT DO NOTHING RETURNING id)
            SELECT 1 / (count(*) * 0) FROM stored INTO sift_state;
        EXCEPTION
            WHEN division_by_zero THEN EXIT;
            WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS sift_state = RETURNED_SQLSTATE, sift_table = TABLE_NAME,
                    sift_column = COLUMN_NAME, sift_constraint = CONSTRAINT_NAME;
                IF sift_time = 3 THEN
                    sift_refused = sift_refused || jsonb_build_array(jsonb_build_array(
                        sift_one.id, sift_state, sift_table, sift_column, sift_constraint));
                END IF;
        END;
    END LOOP;
END LOOP;
PERFORM set_config('sidegate.sift_refused', sift_refused::text, true);
END $sift$
""",
    )
)
_SIFTED = "SELECT current_setting('sidegate.sift_refused')"
_OF_A_RULE = "23"
_NOT_OF_A_ROW = frozenset({"08", "22", "25", "40", "42", "53", "54", "55", "57", "58"})
"""Classes of errors that `db.pool` tells apart: outages, locks, a schema that does not fit, values that do not."""

_INSERT_CONTENTS = """
WITH stored AS (INSERT INTO trace_contents (trace_id, created_at, request, response, truncated, mode)
SELECT trace_id, created_at, decode(request, 'base64'), decode(response, 'base64'), truncated, mode
FROM jsonb_to_recordset(convert_from($1::bytea, 'UTF8')::jsonb) AS r(
    trace_id uuid, created_at timestamptz, request text, response text, truncated boolean, mode text)
ON CONFLICT DO NOTHING
RETURNING trace_id)
SELECT string_agg(uuid_send(trace_id), '') FROM stored
"""

_INSERT_DEAD_LETTER = """
INSERT INTO trace_dead_letters (trace_id, reason, record, kind, charged)
SELECT $1::uuid, $2::text, $3::bytea, $4::smallint, $5::boolean
WHERE NOT EXISTS (SELECT FROM trace_dead_letters WHERE trace_id = $1 AND (record = $3 OR ($5 AND charged)))
    AND NOT EXISTS (SELECT FROM request_traces WHERE id = $1 AND created_at = $6)
RETURNING true
"""

_LOCK_LETTER = "SELECT pg_advisory_xact_lock(hashtextextended($1::uuid::text, 15))"

_LETTERS = """
SELECT received_at, trace_id, kind, charged, reason FROM trace_dead_letters ORDER BY id DESC LIMIT $1
"""
_LETTER_IDS = "SELECT id FROM trace_dead_letters WHERE kind IS NOT NULL ORDER BY id"
_TAKE_LETTER = "DELETE FROM trace_dead_letters WHERE id = $1 RETURNING kind, trace_id, record, charged"

_SELECT = """
SELECT id, created_at, conversation_id::text, conversation_ref, request_type, operation, method, path, user_id,
    project_id, model, response_model, upstream, stream, status, outcome, input_tokens, cached_input_tokens,
    output_tokens, reasoning_tokens, usage_source, total_cost, total_duration_ms, first_byte_ms, upstream_ms,
    overhead_ms, request_bytes, response_bytes, upstream_request_id, routing_decisions::text, llm_calls::text,
    tool_calls::text, error_info::text, phases::text, client::text, quota::text, policy::text,
    recorded_at
FROM request_traces
"""

_SELECT_ONE = _SELECT + "WHERE created_at = $1 AND id = $2"

# Unused filters fold away when PostgreSQL plans with the values, so each search gets the index that suits it.
_SELECT_PAGE = (
    _SELECT
    + """
WHERE ($1::timestamptz IS NULL OR created_at >= $1)
    AND ($2::timestamptz IS NULL OR created_at < $2)
    AND ($3::text IS NULL OR project_id = $3)
    AND ($4::text IS NULL OR user_id = $4)
    AND ($5::text IS NULL OR conversation_ref = $5 OR conversation_id::text = $5)
    AND ($6::text IS NULL OR model = $6)
    AND ($7::text IS NULL OR request_type = $7)
    AND ($8::text IS NULL OR outcome = $8)
    AND ($9::integer IS NULL OR status = $9)
    AND ($10::numeric IS NULL OR total_cost >= $10)
    AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12::uuid))
ORDER BY created_at DESC, id DESC
LIMIT $13
"""
)

_ID_BYTES = 16
_ENSURE_PARTITIONS = "SELECT sidegate_ensure_partitions($1)"
_DROP_PARTITIONS = "SELECT sidegate_drop_partitions($1)"
_DROP_CHAINS = "SELECT sidegate_drop_chains($1)"


class TraceStore:
    """Writes batches of the journal, and reads traces for the API. Uses one connection of the pool per call."""

    def __init__(self, database: Connections, settings: schema.Database) -> None:
        self._database = database
        self._days_ahead = settings.partitions_ahead_days
        self._retention_days = settings.retention_days

    async def apply(self, connection: Any, records: Sequence[Record]) -> Sequence[Record]:
        """Store finals and contents; return those that were new, in order.

        `connection`: inside the writer's transaction. Records of other kinds are returned for the next applier.
        """
        finals = await _insert(connection, FINAL, records)
        contents = await _insert(connection, CONTENT, records)
        if len(finals) + len(contents) == _ID_BYTES * len(records):
            return records
        stored = {FINAL: _split(finals), CONTENT: _split(contents)}
        fresh = []
        for record in records:
            ids = stored.get(record.kind)
            if ids is None:
                fresh.append(record)  # another applier knows whether it is new
            elif record.trace_id in ids:
                ids.remove(record.trace_id)  # the same record twice in one batch is new once
                fresh.append(record)
        return fresh

    async def refused(self, records: Sequence[Record]) -> Mapping[bytes, str]:
        """Return the ids of finals that a trigger or a constraint refuses even alone, with the reason; store nothing.

        It misses those that are refused by what PostgreSQL checks behind a statement. Raises what `apply` raises.
        """
        bodies = b",".join(record.body for record in records if record.kind is FINAL)
        if not bodies:
            return {}
        try:
            async with self._database.transaction(patient=True) as connection:
                await connection.execute(_SIFT_BATCH, f"[{bodies.decode()}]")
                await connection.execute(_SIFT)
                raise _Sifted(orjson.loads(await connection.fetchval(_SIFTED)))
        except _Sifted as sifted:
            return sifted.refused

    async def dead_letter(self, connection: Any, record: Record, reason: str, *, is_charged: bool) -> bool:
        """Store a record that PostgreSQL refuses, as bytes, with the reason; tell whether it is new. Idempotent.

        `is_charged`: a second final of a trace that was charged is not new either; a copied journal may have made it.

        The answer to an earlier COMMIT may be lost while PostgreSQL is still about it, or somebody stores the same
        record from an earlier dead letter just now: only the lock waits for their end.
        """
        identity, kind = UUID(bytes=record.trace_id), record.kind.value
        stored_at = created_at(str(identity)) if record.kind is FINAL else None  # the id of a lease has no time
        await connection.execute(_LOCK_LETTER, identity)
        return bool(
            await connection.fetchval(
                _INSERT_DEAD_LETTER, identity, reason[:1000], record.body, kind, is_charged, stored_at
            )
        )

    async def letters(self, limit: int) -> Sequence[Letter]:
        """Return the latest dead letters, newest first. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            return [Letter(*row.values()) for row in await connection.fetch(_LETTERS, limit)]

    async def letter_ids(self) -> Sequence[int]:
        """Return the ids of all that can be stored, in the order of the journal. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            return [row["id"] for row in await connection.fetch(_LETTER_IDS)]

    async def take_letter(self, connection: Any, letter_id: int) -> tuple[Record, bool] | None:
        """Remove a dead letter, in the transaction that stores its record; return that, and whether it is charged.

        `None`: somebody else has taken it.
        """
        row = await connection.fetchrow(_TAKE_LETTER, letter_id)
        if row is None:
            return None
        kind, trace_id, body, is_charged = row.values()
        await connection.execute(_LOCK_LETTER, trace_id)
        return Record(Kind(kind), trace_id.bytes, body, 0, 0), is_charged

    async def get(self, trace_id: UUID) -> StoredTrace | None:
        """Return one trace; reads only the partition of its day. Raises DatabaseUnavailable."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(_SELECT_ONE, created_at(str(trace_id)), trace_id)
        return None if row is None else StoredTrace(*row.values())

    async def search(self, filters: Filters, limit: int, cursor: UUID | None = None) -> Page:
        """Return at most `limit` traces older than `cursor`, newest first. Raises DatabaseUnavailable.

        A trace that is stored between two pages appears if it is older than the cursor; no trace appears twice.
        """
        before: datetime | None = None if cursor is None else created_at(str(cursor))
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                _SELECT_PAGE,
                filters.since,
                filters.until,
                filters.project_id,
                filters.user_id,
                filters.conversation,
                filters.model,
                filters.request_type,
                filters.outcome,
                filters.status,
                filters.min_cost,
                before,
                cursor,
                limit + 1,
            )
        traces = tuple(StoredTrace(*row.values()) for row in rows[:limit])
        return Page(traces, traces[-1].id if len(rows) > limit else None)

    async def maintain(self) -> int:
        """Create future day partitions and drop those past retention, chains as well; return how many were dropped.

        Cheap and idempotent; rows of a missing day go to the default partition, so nothing is lost if this runs late.
        """
        async with self._database.transaction(patient=True) as connection:
            await connection.execute(_ENSURE_PARTITIONS, self._days_ahead)
        async with self._database.transaction(patient=True) as connection:
            dropped = int(await connection.fetchval(_DROP_PARTITIONS, self._retention_days))
        forgotten = 1
        while forgotten:
            async with self._database.transaction(patient=True) as connection:
                forgotten = await connection.fetchval(_DROP_CHAINS, self._retention_days)
        return dropped


class _Sifted(Exception):
    """Rolls back the transaction that it leaves."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.refused: dict[bytes, str] = {}
        for name, state, table, column, constraint in rows:
            fields = {"C": state, "M": ""}
            if state[:2] == _OF_A_RULE:  # as in `db.pool`; what else a trigger raises may name data, not the schema
                fields |= {"t": table, "c": column, "n": constraint}
            is_partition_missing = state == "23514" and table and not constraint
            if state[:2] not in _NOT_OF_A_ROW and not is_partition_missing:
                self.refused[UUID(name).bytes] = describe(asyncpg.PostgresError.new(fields))


async def _insert(connection: Any, kind: Kind, records: Sequence[Record]) -> bytes:
    """Store all records of one kind with one statement; return the ids that were new, concatenated."""
    bodies = [record.body for record in records if record.kind is kind]
    if not bodies:
        return b""
    statement = _INSERT_TRACES if kind is FINAL else _INSERT_CONTENTS
    bodies[0] = b"[" + bodies[0]
    bodies[-1] += b"]"
    new: bytes | None = await connection.fetchval(statement, b",".join(bodies))
    return new or b""


def _split(ids: bytes) -> set[bytes]:
    return {ids[at : at + _ID_BYTES] for at in range(0, len(ids), _ID_BYTES)}
