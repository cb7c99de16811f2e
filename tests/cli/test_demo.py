import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("sidegate")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def ask(port: int, process: subprocess.Popen[bytes]) -> dict[str, object]:
    """Ask for the models as soon as the port is open."""
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, process.communicate()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/v1/models")
            return json.loads(connection.getresponse().read())
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        finally:
            connection.close()


def test_demo_upstream_answers_until_a_signal():
    port = free_port()
    process = subprocess.Popen(
        [SCRIPT, "demo-upstream", "--listen", f"127.0.0.1:{port}"],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert ask(port, process)["object"] == "list"
    finally:
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("address", ["8081", ":8081", "h:x"])
def test_demo_upstream_with_no_address_is_wrong_usage(sidegate, address):
    done = sidegate("demo-upstream", "--listen", address)
    assert done.returncode == 2
    assert done.stderr.startswith("sidegate: argument --listen: ")
