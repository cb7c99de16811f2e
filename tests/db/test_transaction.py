import asyncpg

from proxy.db.transaction import bounded_transaction


async def test_transaction_when_the_server_is_set_otherwise_then_what_statements_need_counts_in_it_alone(
    empty_database_url: str,
) -> None:
    connection = await asyncpg.connect(empty_database_url)
    limits = ["statement_timeout", "lock_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"]
    if await connection.fetchval("SELECT NOT EXISTS (SELECT FROM pg_settings WHERE name = 'transaction_timeout')"):
        limits.remove("transaction_timeout")  # before PostgreSQL 17
    names = ["transaction_isolation", "jit", *limits]
    # As a DBA sets it for a role or a database.
    await connection.execute("SET default_transaction_isolation = serializable; SET jit = on")
    for name in limits:
        await connection.execute(f"SET {name} = '9s'")
    async with bounded_transaction(connection):
        inside = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert inside == ["read committed", "off", *["0" for _ in limits[1:]], "5s"]
    after = [await connection.fetchval(f"SHOW {name}") for name in names]
    assert after == ["serializable", "on", *["9s" for _ in limits]]
    await connection.close()
