"""The proxy as its users run it: a process of its own, judged from outside only.

It is a fork of the session's warm process (`tests.fakes.warm`), which takes half the time of a start. Tests of the
start itself, and of what a process weighs, say `by_script`: the console script starts it then.

Rule of the file: nothing of the package is imported. The process listens on ports that the system chooses and tells
them in one JSON line on stderr (`"event": "listening"`); it is ready when `/readyz` answers 200. CPU time and memory
are those of exactly that process, read from /proc.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.fakes import warm
from tests.fakes.wire import Address

ADMIN_KEY = "sg-admin-key-of-the-tests"
PROVIDER_KEY = "sk-provider-key-of-the-tests-0123456789"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


class Sidegate:
    """One proxy process and its data directory. `restart` starts a new process on the same data."""

    def __init__(
        self,
        data_dir: Path,
        upstream: str,
        database_url: str | None,
        settings: dict[str, str] | None = None,
        *,
        by_script: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self._by_script = by_script
        self._log_path = data_dir / "stderr.log"
        self._environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._environment |= {
            "SIDEGATE_LISTEN": "127.0.0.1:0",
            "SIDEGATE_OPS_LISTEN": "127.0.0.1:0",
            "SIDEGATE_DATA_DIR": str(data_dir / "var"),
            "SIDEGATE_ADMIN_KEY": ADMIN_KEY,
            "UPSTREAM_BASE_URL": upstream,
            "OPENAI_API_KEY": PROVIDER_KEY,
            # All tests of a session are one caller; what is about quotas sets its own.
            "DEFAULT_QUOTA_TOKENS_DAILY": "1000000000000",
            "DEFAULT_QUOTA_COST_DAILY": "1000000",
            # Few have no database on purpose, and those are not about the wait for it.
            "SIDEGATE__QUOTA__COLD_START_WAIT_S": "2",
            # Compiling the rules takes a second of a core, of which a busy machine may give a tenth.
            "SIDEGATE__POLICY__COMPILE_WAIT_S": "60",
            # Such a machine makes every event loop late; what is shed then is tested where lateness is given.
            **{f"SIDEGATE__SHEDDING__{name}_LAG_S": "60" for name in ("CONTENT", "FAIR", "FULL", "CLOSED")},
            **({"DATABASE_URL": database_url} if database_url else {}),
            **(settings or {}),
        }

    def start(self, ready_within_s: float = 30.0) -> "Sidegate":
        """Start and wait until it is ready. Raises: AssertionError with the process's log when it does not come up."""
        log = self._log_path.open("ab")
        self._log_from = log.tell()
        self._asked = False
        started = time.monotonic()
        with log:
            self.process = self._begin(log.fileno())
        deadline = started + ready_within_s
        listening = self._wait(self._listening_line, deadline)
        self.address = _address(listening["data"])
        self.ops_address = _address(listening["ops"])
        self._wait(self.is_ready, deadline)
        self.ready_after_s = time.monotonic() - started
        return self

    def _begin(self, log: int) -> "subprocess.Popen[bytes] | warm.Command":
        if not self._by_script:
            return warm.start(["serve"], self._environment, self.data_dir, log, log)
        command = [Path(sys.executable).with_name("sidegate"), "serve"]
        return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=self.data_dir)

    def _wait(self, attempt: Any, deadline: float) -> Any:
        while time.monotonic() < deadline:
            if found := attempt():
                return found
            assert self.process.poll() is None, f"the proxy ended with {self.process.returncode}:\n{self.log()}"
            time.sleep(0.01)
        raise AssertionError(f"the proxy is not ready:\n{self.log()}")

    def _listening_line(self) -> Any:
        for line in self.log(own_run=True).splitlines():
            if '"listening"' in line:
                return json.loads(line)
        return None

    def is_ready(self) -> bool:
        try:
            return self.ops("/readyz")[0] == 200
        except OSError:
            return False

    def reach_database(self, within_s: float = 30.0) -> "Sidegate":
        """Wait until it has found its database, which `/readyz` does not wait for."""
        self._wait(lambda: '"database":"up"' in self.ops("/readyz")[1], time.monotonic() + within_s)
        return self

    @property
    def base_url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}/v1"

    def log(self, own_run: bool = False) -> str:
        """Everything that the processes on this data wrote; `own_run`: only the current one."""
        data = self._log_path.read_bytes()
        return data[self._log_from if own_run else 0 :].decode(errors="replace")

    def ops(self, path: str) -> tuple[int, str]:
        return _get(self.ops_address, path, {})

    def metrics(self) -> dict[str, float]:
        """All samples, keyed by name with labels as they are printed."""
        lines = [line for line in self.ops("/metrics")[1].splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def api(self, path: str) -> tuple[int, Any]:
        """GET something of the management API with the admin key."""
        status, text = _get(self.address, path, {"Authorization": f"Bearer {ADMIN_KEY}"})
        return status, json.loads(text)

    def trace(self, trace_id: str, within_s: float = 30.0) -> dict[str, Any]:
        """Return a trace as soon as it has reached the database, which may itself still be starting."""
        deadline = time.monotonic() + within_s
        while True:
            status, body = self.api(f"/v1/traces/{trace_id}")
            if status == 200:
                assert isinstance(body, dict)
                return body
            assert status in (404, 503) and time.monotonic() < deadline, f"no trace {trace_id}: {status} {body}"
            time.sleep(0.03)

    def kill9(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def ask_to_end(self) -> None:
        """Send SIGTERM and go on. A second one makes it hurry."""
        self._asked = True
        self.process.send_signal(signal.SIGTERM)

    def terminate(self, within_s: float = 20.0) -> int:
        """Ask it to end, unless that was done already, and return its exit code."""
        if not self._asked and self.process.poll() is None:
            self.ask_to_end()
        return self.process.wait(within_s)

    def restart(self) -> "Sidegate":
        return self.start()

    def stop(self) -> None:
        """End it however it stands."""
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill9()
            raise

    def rss_bytes(self) -> int:
        return self._status("VmRSS") * 1024

    def huge_bytes(self) -> int:
        """How much of its memory is on huge pages."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("AnonHugePages:")).split()[1]) * 1024

    def peak_rss_bytes(self) -> int:
        return self._status("VmHWM") * 1024

    def reset_peak_rss(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    def cpu_s(self) -> float:
        """User and system time so far, children aside."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _get(address: Address, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
