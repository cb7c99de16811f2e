"""Child processes that run a private PostgreSQL: as another account, from a closed directory, or to be killed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import proxy
from proxy.db.install import PACKAGE, Account, can_enter, find_programs

NOBODY = 65534

SERVE = """
import asyncio, sys
from pathlib import Path
from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import EmbeddedPostgresError

async def main():
    server = EmbeddedPostgres(Path(sys.argv[1]), shelter=Path(sys.argv[2]))
    try:
        print(await server.start(), flush=True)
    except EmbeddedPostgresError as error:
        sys.exit(f"refused: {error}")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()

asyncio.run(main())
"""
"""Serve <data_dir> <shelter> until standard input ends; the first line of the output is the DSN."""

ASK = """
import asyncio, sys
import asyncpg

async def main():
    try:
        connection = await asyncpg.connect(sys.argv[1], timeout=5)
        print(await connection.fetchval(sys.argv[2]))
        await connection.close()
    except (OSError, asyncpg.PostgresError) as error:
        sys.exit(f"refused: {type(error).__name__}")

asyncio.run(main())
"""
"""Ask <dsn> <query> and print the answer."""


def copy_site(target: Path) -> Path:
    """Copy what the children import to a directory where its reader decides who may enter."""
    shutil.copytree(Path(proxy.__file__).parent, target / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    spec = find_spec("asyncpg")
    assert spec and spec.origin
    shutil.copytree(Path(spec.origin).parent, target / "asyncpg")
    programs = find_programs()
    shutil.copytree(programs.parent, target / PACKAGE / programs.parent.name, ignore=shutil.ignore_patterns("include"))
    (target / PACKAGE / "__init__.py").touch()
    libraries = programs.parents[1].with_name(f"{PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    _copy_interpreter_if_closed(target)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return target


def _copy_interpreter_if_closed(target: Path) -> None:
    """Copy Python itself where only root may run it, for example below root's home."""
    program = Path(sys.executable).resolve()
    if can_enter(program.parent, Account(NOBODY, NOBODY)):
        return
    unneeded = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "tkinter", "config-*", "*.opt-*.pyc")
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, target / "python" / "lib" / library.name, ignore=unneeded)
    for shared in library.parent.glob("libpython*.so*"):
        shutil.copy(shared, target / "python" / "lib")
    (target / "python" / "bin").mkdir()
    shutil.copy(program, target / "python" / "bin" / "python")


def start(site: Path, script: str, *arguments: object, uid: int | None = None) -> "subprocess.Popen[str]":
    """Run a script with `site` as its only packages, as `uid` or as ourselves."""
    return subprocess.Popen(
        _command(site, script, arguments),
        env=_environment(site),
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(site: Path, script: str, *arguments: object, uid: int | None = None) -> tuple[str, str]:
    """Run a script to its end; return what it wrote to standard output and standard error."""
    child = start(site, script, *arguments, uid=uid)
    output, errors = child.communicate(timeout=60)
    return output.strip(), errors.strip()


def first_line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout and child.stderr
    line = child.stdout.readline().strip()
    return line or child.stderr.read()


def finish(child: "subprocess.Popen[str]") -> None:
    """End a child by the end of its input, and close its pipes."""
    child.communicate(timeout=60)


def _command(site: Path, script: str, arguments: Sequence[object]) -> list[str]:
    # Never the virtual environment's own: it may be closed to the other account. The first child that may write keeps
    # what it compiled for the others: compiling takes several times as long as all the rest of a child's start.
    copied = site / "python" / "bin" / "python"
    interpreter = copied if copied.exists() else Path(sys.executable).resolve()
    return [str(interpreter), "-s", "-c", script, *(str(argument) for argument in arguments)]


def _environment(site: Path) -> dict[str, str]:
    paths = {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(site / "python" / "lib")}
    return {**paths, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
