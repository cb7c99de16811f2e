"""The transaction in which all work is done, independent of what a server, a database or a role has as its defaults.

Rule of the file: everything is set for the transaction, never for the session, in one round trip.

Source: PostgreSQL documentation, "Client Connection Defaults".
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_BOUNDED: Final = (
    "SET LOCAL idle_in_transaction_session_timeout = {}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;"
    " SET LOCAL jit = off; SET LOCAL standard_conforming_strings = on; SET LOCAL quote_all_identifiers = off;"
    " SELECT set_config('transaction_timeout', '0', true)"
    " WHERE current_setting('server_version_num')::integer >= 170000"  # older ones do not know it
)
_ABANDONED_MS = 5000
"""How long PostgreSQL waits for the next statement of a transaction. The locks of one whose client has vanished without
a word would otherwise stop every replica until its server's keepalive notices: two hours where nobody changed it."""


@asynccontextmanager
async def bounded_transaction(connection: Connection) -> AsyncIterator[None]:
    """Run the block in a transaction that PostgreSQL rolls back if no statement comes for some seconds.

    What else a server or a role may be set to does not apply in it: another isolation than READ COMMITTED, in which two
    replicas that change a row would fail instead of waiting for each other; limits for statements, locks and whole
    transactions, instead of our own; the JIT compiler, which takes longer than our statements run; backslashes as
    escapes in strings; and quoted names, where PostgreSQL tells the text of a function or the name of a table. A
    process that was paused for longer finds its connection closed: `DatabaseUnavailable` in a block of `acquire`.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(_BOUNDED.format(_ABANDONED_MS))
        yield
