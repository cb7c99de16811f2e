import json
import signal
import socket
import subprocess
import sys

import pytest

from proxy.cli.main import main


def test_serve_with_a_mistake_says_so_before_anything_is_started(sidegate, tmp_path):
    (tmp_path / "c.yaml").write_text("server: {drian_s: 1}")
    done = sidegate("serve", "--config", "c.yaml", "--ops-listen", "9090", "--data-dir", "d")
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "c.yaml:1: server.drian_s: unknown key; did you mean drain_s?",
        "--ops-listen: must be host:port, for example 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
        "sidegate: 2 mistakes in the configuration",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize("words", [[], ["--welcome"]])
def test_serve_hands_the_loaded_configuration_to_the_server_and_returns_its_code(words, monkeypatch):
    seen = []

    def serve(loaded, load, welcome):
        again = load()
        assert (again.config, again.files) == (loaded.config, loaded.files)
        seen.append((loaded.config.server.listen.port, loaded.config.server.ops_listen.port, loaded.demo, welcome))
        return 3

    monkeypatch.setattr("proxy.serve.run", serve)
    monkeypatch.setenv("UPSTREAM_BASE_URL", "http://127.0.0.1:1/v1")
    assert main(["serve", "--listen", "127.0.0.1:5", "--ops-listen", "127.0.0.1:6", *words]) == 3
    assert seen == [(5, 6, False, bool(words))]


def test_serve_when_hung_up_before_it_listens_then_it_goes_on(monkeypatch):
    before = signal.getsignal(signal.SIGHUP)

    def serve(*_arguments, **_options):
        assert callable(signal.getsignal(signal.SIGHUP))
        signal.raise_signal(signal.SIGHUP)
        return 5

    monkeypatch.setattr("proxy.serve.run", serve)
    try:
        assert main(["serve"]) == 5
    finally:
        signal.signal(signal.SIGHUP, before)


def test_serve_maps_compiled_modules_before_it_imports_the_server(monkeypatch):
    done = []
    monkeypatch.setattr("proxy.cli.serve.map_extensions", lambda: done.append("mapped"))
    monkeypatch.setattr("proxy.cli.serve.imported", lambda target: lambda *_, **__: done.append(target) or 0)
    monkeypatch.setenv("UPSTREAM_BASE_URL", "http://127.0.0.1:1/v1")
    assert main(["serve"]) == 0
    assert done == ["mapped", "proxy.serve:run"]


def test_serve_on_a_port_that_is_taken_names_the_setting(sidegate):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        # As users run it: the end of a failed start may warn of what it leaves open.
        done = sidegate("serve", "--listen", listen, PYTHONWARNINGS="", UPSTREAM_BASE_URL="http://127.0.0.1:1/v1")
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["event"] == "cannot start"
    assert line["reason"].startswith("server.listen (SIDEGATE_LISTEN): ")
    assert "address already in use; stop what listens there, or choose another port" in line["reason"]


def test_serve_leaves_what_it_has_made_to_no_collection_before_it_listens(tmp_path):
    """A collection of all keeps the event loop, and with it every request, for 25 ms."""
    script = """
import gc
import sys
from proxy import serve
from proxy.cli.main import main

async def listen(process, app):
    print("listening", gc.get_freeze_count() > 10_000)
    raise OSError("that is enough")

serve._Process._listen = listen
sys.exit(main(["serve", "--data-dir", sys.argv[1]]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.splitlines(), done.returncode) == (["listening True"], 1), done.stderr


@pytest.mark.parametrize(("directory", "reason"), [("file", "File exists"), ("file/below", "Not a directory")])
def test_serve_with_a_data_directory_that_cannot_be_used_names_the_setting(sidegate, tmp_path, directory, reason):
    (tmp_path / "file").touch()
    data_dir = tmp_path / directory
    done = sidegate("serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir), SIDEGATE_ADMIN_KEY="k" * 32)
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["event"] == "cannot start"
    assert line["reason"] == f"data_dir (SIDEGATE_DATA_DIR): {data_dir} cannot be used: {reason}"
