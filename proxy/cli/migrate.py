"""`sidegate migrate`: apply or roll back database migrations, or list them.

Works on the configured database, or else on the private PostgreSQL below the data directory. That one is started for
the command, so no running proxy may be using it (a proxy migrates its private database by itself).
"""

import argparse
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.cli.database import with_database
from proxy.cli.failure import CommandFailed, Exit
from proxy.cli.options import add_config, add_data_dir, settings, whole_number
from proxy.config.schema import Config
from proxy.db import migrate
from proxy.db.pool import Database
from proxy.db.transaction import Connection

_ENDING: Final = """\
examples:
  DATABASE_URL=postgresql://user@host/db sidegate migrate up
  sidegate migrate status
  sidegate migrate down --to 0     (drops what Sidegate created, with its data)

Any number of processes may run `up` at once: one migrates, the others wait for it."""

Action = Callable[[Connection, argparse.Namespace], Awaitable[None]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments of the command."""
    parser.description, parser.epilog = "Apply or roll back database migrations, or list them.", _ENDING
    actions = parser.add_subparsers(metavar="up|down|status", required=True)
    up = actions.add_parser("up", help="apply outstanding migrations", description="Apply outstanding migrations.")
    up.add_argument("--to", metavar="N", type=whole_number(0, 999), help="stop at version N (default: the newest)")
    up.set_defaults(run=run, action=_up)
    down = actions.add_parser("down", help="roll back", description="Roll back everything above a version.")
    down.add_argument(
        "--to", metavar="N", type=whole_number(0, 999), required=True, help="version to keep; 0 rolls back everything"
    )
    down.set_defaults(run=run, action=_down)
    status = actions.add_parser("status", help="list the migrations", description="List all migrations.")
    status.set_defaults(run=run, action=_status)
    for action in (up, down, status):
        add_config(action)
        add_data_dir(action)


def run(arguments: argparse.Namespace) -> int:
    """Connect, run the action, and report what it did."""
    action: Action = arguments.action

    async def act(database: Database, _: Config) -> None:
        async with database.acquire(patient=True) as connection:
            await action(connection, arguments)

    try:
        with_database(settings(arguments), act)
    except migrate.MigrationError as error:
        raise CommandFailed(str(error)) from None
    return Exit.OK


async def _up(connection: Connection, arguments: argparse.Namespace) -> None:
    _report("applied", await migrate.up(connection, arguments.to))


async def _down(connection: Connection, arguments: argparse.Namespace) -> None:
    _report("rolled back", await migrate.down(connection, arguments.to))


async def _status(connection: Connection, arguments: argparse.Namespace) -> None:
    for row in await migrate.status(connection):
        at = f"{row.applied_at:%Y-%m-%d %H:%M:%S %Z}" if row.applied_at else "-"
        print(f"{row.version:03d}  {row.name:<32}  {row.state:<8}  {at}".rstrip())


def _report(what: str, done: list[migrate.Applied]) -> None:
    for each in done:
        print(f"{what} {each.version:03d}_{each.name}")
    if not done:
        print("nothing to do")
