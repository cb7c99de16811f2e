"""`sidegate dead-letters`: list the records that PostgreSQL refused, and store them once the reason is gone.

Works on the database itself, like `migrate`. Each record is a transaction: it is stored, charged if it was not when it
was put aside, and removed from the dead letters, or nothing changes.
"""

import argparse
from typing import Final

import asyncpg

from proxy.cli.database import with_database
from proxy.cli.failure import Exit
from proxy.cli.options import add_config, add_data_dir, settings, whole_number
from proxy.config.schema import Config
from proxy.db.pool import Database
from proxy.errors import DatabaseContended, DatabaseTooSlow, DatabaseUnfit, RecordRejected
from proxy.journal.frames import Kind
from proxy.quota.ledger import Ledger
from proxy.trace.store import TraceStore

_ENDING: Final = """\
examples:
  sidegate dead-letters list
  DATABASE_URL=postgresql://user@host/db sidegate dead-letters retry

`retry` may be run while proxies run. Exit code 1: a record is refused again."""

_OF_THE_RECORD: Final = (RecordRejected, DatabaseContended, DatabaseTooSlow, DatabaseUnfit, asyncpg.PostgresError)
"""What may be wrong with one record: the others are tried all the same."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "List the records that PostgreSQL refused, or store them now.", _ENDING
    actions = parser.add_subparsers(metavar="list|retry", required=True)
    listing = actions.add_parser("list", help="list them", description="List the latest dead letters.")
    listing.add_argument(
        "--limit", "-n", metavar="N", type=whole_number(1, 100_000), default=20, help="how many (default: 20)"
    )
    listing.set_defaults(run=_list)
    retry = actions.add_parser("retry", help="store them", description="Store all dead letters that fit by now.")
    retry.set_defaults(run=_retry)
    for action in (listing, retry):
        add_config(action)
        add_data_dir(action)


def _list(arguments: argparse.Namespace) -> int:
    async def act(database: Database, config: Config) -> None:
        for letter in await TraceStore(database, config.database).letters(arguments.limit):
            kind = "?" if letter.kind is None else Kind(letter.kind).name.lower()
            charged = "charged" if letter.is_charged else "-"
            at = f"{letter.received_at:%Y-%m-%d %H:%M:%S %Z}"
            print(f"{at}  {letter.trace_id}  {kind:<11}  {charged:<7}  {letter.reason}")

    with_database(settings(arguments), act)
    return Exit.OK


def _retry(arguments: argparse.Namespace) -> int:
    stored = refused = 0

    async def act(database: Database, config: Config) -> None:
        nonlocal stored, refused
        traces, ledger = TraceStore(database, config.database), Ledger(database, config.quota, "")
        for name in await traces.letter_ids():
            try:
                async with database.transaction(patient=True) as connection:
                    taken = await traces.take_letter(connection, name)
                    if taken is None:
                        continue  # another `retry` was faster
                    record, is_charged = taken
                    new = await traces.apply(connection, [record])
                    if not is_charged:
                        await ledger.apply(connection, new)
                stored += 1
            except _OF_THE_RECORD as error:
                refused += 1
                reason = f"SQLSTATE {error.sqlstate}" if isinstance(error, asyncpg.PostgresError) else str(error)
                print(f"{name} is refused again: {reason}")

    with_database(settings(arguments), act)
    print(f"stored {stored}, refused {refused}")
    return Exit.FAILED if refused else Exit.OK
