import asyncio
import os
import shutil
import signal
import stat
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import uvloop

from proxy.db.embedded import EmbeddedPostgres
from proxy.db.install import EmbeddedPostgresError
from tests.db import children

is_root = os.geteuid() == 0
only_root = pytest.mark.skipif(not is_root, reason="only root has another account to lend")


@pytest.fixture
def empty_dir(open_tmp: Path) -> Iterator[Path]:
    path = open_tmp / uuid.uuid4().hex / "var"
    yield path
    shutil.rmtree(path.parent, ignore_errors=True)


@pytest.fixture(scope="module")
def used_dir(open_tmp: Path) -> Path:
    """Where a server once ran. Making a cluster takes most of a test's time, and few are about that."""
    path = open_tmp / "used"

    async def run() -> None:
        server = EmbeddedPostgres(path)
        await server.start()
        await server.stop()

    asyncio.run(run())
    return path


@pytest.fixture
def data_dir(empty_dir: Path, used_dir: Path) -> Path:
    empty_dir.parent.mkdir()
    return copy(used_dir, empty_dir)


def copy(used_dir: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", used_dir, target], check=True)
    return target


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    yield server
    await server.stop()


@pytest.fixture(scope="module")
def site(open_tmp: Path) -> Path:
    """Packages for child processes, readable by everyone."""
    return children.copy_site(open_tmp / "site")


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def write(dsn: str, value: int) -> None:
    await ask(dsn, "CREATE TABLE IF NOT EXISTS kept (value INTEGER)")
    await ask(dsn, f"INSERT INTO kept VALUES ({value})")


def socket_dir(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


def postmaster(data_dir: Path) -> int:
    return int((instance(data_dir) / "data" / "postmaster.pid").read_text().splitlines()[0])


def instance(data_dir: Path) -> Path:
    return data_dir / "postgres" / "instance"


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while runs(pid):
            await asyncio.sleep(0.02)


async def test_start_when_empty_then_answers_and_leaves_loop_free(empty_dir: Path) -> None:
    server = EmbeddedPostgres(empty_dir)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    dsn = await server.start()
    ticker.cancel()
    try:
        assert await ask(dsn, "SELECT 41 + 1") == 42
    finally:
        await server.stop()
    assert ticks > 5


async def test_start_again_then_data_is_there_and_dsn_is_published(server: EmbeddedPostgres, data_dir: Path) -> None:
    await write(await server.start(), 7)
    await server.stop()
    assert not (data_dir / "postgres" / "dsn").exists()
    dsn = await server.start()
    assert await ask(dsn, "SELECT value FROM kept") == 7
    assert (data_dir / "postgres" / "dsn").read_text() == f"{dsn}\n"


async def test_stop_then_no_process_and_no_socket_is_left(server: EmbeddedPostgres, data_dir: Path) -> None:
    dsn = await server.start()
    pid = postmaster(data_dir)
    await server.stop()
    assert not runs(pid)
    assert not socket_dir(dsn).exists()
    await server.stop()


async def test_server_when_started_then_is_private_and_unprivileged(server: EmbeddedPostgres, data_dir: Path) -> None:
    dsn = await server.start()
    status = Path(f"/proc/{postmaster(data_dir)}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    for private in (instance(data_dir), socket_dir(dsn)):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert str(private.stat().st_uid) == uids[0]
    assert await ask(dsn, "SHOW listen_addresses") == ""
    assert await ask(dsn, "SHOW fsync") == "on"


async def test_server_when_started_then_stands_apart_from_terminal_and_secrets(
    server: EmbeddedPostgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    await server.start()
    pid = postmaster(data_dir)
    assert os.getsid(pid) != os.getsid(0)
    assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_log_when_statement_is_refused_then_names_no_value(server: EmbeddedPostgres, data_dir: Path) -> None:
    dsn = await server.start()
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await ask(dsn, "SELECT 'canary-value'::integer")
    assert "canary" not in (data_dir / "postgres" / "server.log").read_text()


async def test_start_when_same_directory_is_in_use_then_says_so(server: EmbeddedPostgres, data_dir: Path) -> None:
    dsn = await server.start()
    with pytest.raises(EmbeddedPostgresError, match="another process uses"):
        await EmbeddedPostgres(data_dir).start()
    with pytest.raises(EmbeddedPostgresError, match="started already"):
        await server.start()
    assert await ask(dsn, "SELECT 1") == 1


async def test_two_servers_when_started_together_then_do_not_mix(used_dir: Path, data_dir: Path) -> None:
    servers = [EmbeddedPostgres(copy(used_dir, data_dir / name)) for name in ("one", "two")]
    try:
        dsns = await asyncio.gather(*(server.start() for server in servers))
        for number, dsn in enumerate(dsns):
            await write(dsn, number)
        assert [await ask(dsn, "SELECT array_agg(value) FROM kept") for dsn in dsns] == [[0], [1]]
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def test_start_when_path_is_longer_than_a_socket_name_then_works(open_tmp: Path) -> None:
    deep = open_tmp / ("d" * 120)
    server = EmbeddedPostgres(deep)
    try:
        assert await ask(await server.start(), "SELECT 1") == 1
    finally:
        await server.stop()
        shutil.rmtree(deep)


async def test_start_when_server_was_killed_then_recovers(server: EmbeddedPostgres, data_dir: Path) -> None:
    await write(await server.start(), 1)
    os.kill(postmaster(data_dir), signal.SIGKILL)
    await server.stop()
    assert await ask(await server.start(), "SELECT value FROM kept") == 1


async def test_supervise_when_server_was_killed_then_same_dsn_answers_again(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    dsn = await server.start()
    await write(dsn, 1)
    watch = asyncio.create_task(server.supervise())
    killed = postmaster(data_dir)
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(20):
        while True:
            try:
                assert await ask(dsn, "SELECT value FROM kept") == 1
                break
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
    watch.cancel()
    assert postmaster(data_dir) != killed


async def test_start_when_pid_file_names_a_stranger_then_leaves_him_alone(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    await server.start()
    os.kill(postmaster(data_dir), signal.SIGKILL)
    await server.stop()
    account = instance(data_dir).stat()
    stranger = subprocess.Popen(["sleep", "60"], user=account.st_uid if is_root else None)
    note = instance(data_dir) / "data" / "postmaster.pid"
    note.write_text("\n".join([str(stranger.pid), *note.read_text().splitlines()[1:], ""]))
    try:
        assert await ask(await server.start(), "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_parent_when_killed_then_server_ends_and_next_start_has_the_data(site: Path, data_dir: Path) -> None:
    child = children.start(site, children.SERVE, data_dir, data_dir / "shelter")
    dsn = await asyncio.to_thread(children.first_line, child)
    await write(dsn, 5)
    orphan = postmaster(data_dir)
    child.kill()
    children.finish(child)
    await until_gone(orphan)
    assert "database system is shut down" in (data_dir / "postgres" / "server.log").read_text()
    server = EmbeddedPostgres(data_dir)
    try:
        assert await ask(await server.start(), "SELECT value FROM kept") == 5
        assert not socket_dir(dsn).exists()
    finally:
        await server.stop()


async def test_start_when_predecessor_is_still_shutting_down_then_waits_for_it(site: Path, data_dir: Path) -> None:
    child = children.start(site, children.SERVE, data_dir, data_dir / "shelter")
    dsn = await asyncio.to_thread(children.first_line, child)
    await write(dsn, 5)
    orphan = postmaster(data_dir)
    os.kill(orphan, signal.SIGSTOP)  # as slow as can be
    child.kill()
    children.finish(child)
    asyncio.get_running_loop().call_later(0.5, os.kill, orphan, signal.SIGCONT)
    server = EmbeddedPostgres(data_dir)
    began = time.monotonic()
    try:
        assert await ask(await server.start(), "SELECT value FROM kept") == 5
    finally:
        await server.stop()
    assert time.monotonic() - began > 0.4
    assert not runs(orphan)


def test_start_when_loop_is_uvloop_then_works(data_dir: Path) -> None:
    async def main() -> object:
        server = EmbeddedPostgres(data_dir)
        try:
            return await ask(await server.start(), "SELECT 1")
        finally:
            await server.stop()

    assert uvloop.run(main()) == 1


async def test_start_when_cancelled_then_nothing_is_left(empty_dir: Path) -> None:
    server = EmbeddedPostgres(empty_dir)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(server.start(), 0.2)
    dsn = await server.start()
    try:
        assert await ask(dsn, "SELECT 1") == 1
    finally:
        await server.stop()


@only_root
async def test_other_account_when_it_connects_then_is_refused(site: Path, server: EmbeddedPostgres) -> None:
    dsn = await server.start()
    for uid in (children.NOBODY, 1):  # the server's own account, and one that cannot even reach the socket
        output, errors = await asyncio.to_thread(children.run, site, children.ASK, dsn, "SELECT 1", uid=uid)
        assert (output, errors.startswith("refused: ")) == ("", True), errors


@only_root
async def test_server_when_we_are_not_root_then_works_the_same(site: Path, open_tmp: Path) -> None:
    home = open_tmp / f"home-{uuid.uuid4().hex}"
    home.mkdir()
    os.chown(home, children.NOBODY, children.NOBODY)
    child = children.start(site, children.SERVE, home / "var", home / "shelter", uid=children.NOBODY)
    dsn = await asyncio.to_thread(children.first_line, child)
    output, errors = await asyncio.to_thread(
        children.run, site, children.ASK, dsn, "SELECT current_user", uid=children.NOBODY
    )
    assert output == "nobody", errors
    orphan = postmaster(home / "var")
    child.kill()
    children.finish(child)
    await until_gone(orphan)
    shutil.rmtree(home)
    shutil.rmtree(socket_dir(dsn))


@only_root
async def test_start_when_only_root_may_enter_then_works_and_opens_nothing(site: Path, open_tmp: Path) -> None:
    closed = open_tmp / f"closed-{uuid.uuid4().hex}"
    closed.mkdir(mode=0o700)
    inner = closed / "site"
    shutil.copytree(site, inner, copy_function=os.link)
    shelter = open_tmp / f"shelter-{uuid.uuid4().hex}"
    for again in (False, True):
        child = children.start(inner, children.SERVE, closed / "var", shelter)
        dsn = await asyncio.to_thread(children.first_line, child)
        assert dsn.startswith("postgresql://"), dsn
        if not again:
            await write(dsn, 1)
        assert await ask(dsn, "SELECT value FROM kept") == 1
        killed = postmaster(closed / "var")
        child.kill()
        await asyncio.to_thread(children.finish, child)
        await until_gone(killed)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert [path.name.split("-")[0] for path in shelter.iterdir()] == ["programs"]
    program = next(shelter.glob("programs-*/*/*/bin/postgres"))
    assert (program.stat().st_uid, stat.S_IMODE(program.stat().st_mode)) == (0, 0o755)
    assert (instance(closed / "var") / "data").is_dir()
    shutil.rmtree(closed)
    shutil.rmtree(shelter)
    shutil.rmtree(socket_dir(dsn))


@only_root
async def test_start_when_directory_is_closed_or_opened_later_then_data_stay(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    for value, mode in enumerate((0o711, 0o700, 0o755)):
        data_dir.chmod(mode)
        dsn = await server.start()
        await write(dsn, value)
        os.kill(postmaster(data_dir), signal.SIGKILL)
        await server.stop()
        assert stat.S_IMODE(data_dir.stat().st_mode) == mode
    dsn = await server.start()
    assert await ask(dsn, "SELECT array_agg(value) FROM kept") == [0, 1, 2]
