import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli.failure import CommandFailed
from proxy.cli.main import COMMANDS, main
from proxy.errors import DatabaseUnavailable
from proxy.process.lazy import imported

SCRIPT = Path(sys.executable).with_name("sidegate")
ROOT = Path(__file__).parents[2]


def test_version_is_that_of_the_package(sidegate):
    done = sidegate("--version")
    assert re.fullmatch(r"sidegate \d+\.\d+\.\d+\S*\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_dash_m_is_the_same_command(sidegate):
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, sidegate("--version").stdout)


def test_help_names_every_command_and_gives_an_example(sidegate):
    done = sidegate("--help")
    assert done.returncode == 0
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"^    {name}\s", done.stdout, re.MULTILINE)
        assert summary in " ".join(done.stdout.split())
    assert "examples:" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_describes_it_and_gives_an_example(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert re.search(r"^examples?:\n  .*sidegate", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND; see sidegate --help"),
        (["srve"], "there is no command srve; did you mean serve; see sidegate --help"),
        (
            ["--config", "c.yaml", "serve"],
            "--config stands before the command; options come behind it: sidegate serve --config FILE; "
            "see sidegate --help",
        ),
        (["x\x1b[2J"], "there is no command x?[2J; see sidegate --help"),
        (["config"], "the following arguments are required: check|show|schema|template; see sidegate config --help"),
        (["quota"], "the following arguments are required: get|set|top|reset; see sidegate quota --help"),
        (
            ["config", "check", "--confg", "x"],
            "unrecognized arguments: --confg x; did you mean --config; see sidegate config check --help",
        ),
        (["serve", "--lis", "h:1"], "unrecognized arguments: --lis h:1; see sidegate serve --help"),
        (
            ["quota", "set", "--user", "a", "--max-token=5", "x"],
            "unrecognized arguments: --max-token=5 x; did you mean --max-tokens; see sidegate quota set --help",
        ),
        (["quota", "top", "-x"], "unrecognized arguments: -x; see sidegate quota top --help"),
        (["quota", "top", "more"], "unrecognized arguments: more; see sidegate quota top --help"),
        (["migrate", "down"], "the following arguments are required: --to; see sidegate migrate down --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert (captured.out, captured.err) == ("", f"sidegate: {message}\n")


def test_mistakes_in_the_configuration_are_all_told_with_exit_code_78(sidegate):
    done = sidegate("config", "check", SIDEGATE_LISTN="x", SIDEGATE_LISTEN="x")
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "environment: SIDEGATE_LISTN: unknown setting; did you mean SIDEGATE_LISTEN?",
        "environment: SIDEGATE_LISTEN: must be host:port, for example 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
        "sidegate: 2 mistakes in the configuration",
    ]


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (CommandFailed("do this"), "do this", 1),
        (DatabaseUnavailable("The database is away."), "The database is away.", 1),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied", 1),
        (OSError(98, "Address already in use"), "Address already in use", 1),
        (TimeoutError(), "TimeoutError", 1),
    ],
)
def test_failures_of_a_command_are_one_line_without_traceback(error, line, code, monkeypatch, capsys):
    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr("proxy.cli.config._print", fail)
    assert main(["config", "schema"]) == code
    assert capsys.readouterr().err == f"sidegate: {line}\n"


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("proxy.cli.config._print", fail)
    with pytest.raises(ZeroDivisionError):
        main(["config", "schema"])


@pytest.mark.parametrize("words", [["config", "schema"], ["config", "template"], ["config", "show"], ["--help"]])
def test_output_to_a_reader_that_left_ends_quietly(words):
    process = subprocess.Popen([SCRIPT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": "/bin"})
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, b"")


def test_ctrl_c_ends_with_130_and_without_traceback():
    """A listener that never answers keeps the command waiting."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [SCRIPT, "traces", "tail", "--url", url],
            env={"PATH": os.environ["PATH"], "SIDEGATE_ADMIN_KEY": "k"},
            stderr=subprocess.PIPE,
        )
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"")


@pytest.mark.parametrize("target", [target for target, _ in COMMANDS.values()])
def test_every_command_of_the_table_exists(target):
    assert callable(imported(target))


def test_config_check_imports_no_server_and_no_database(tmp_path):
    script = "import sys; from proxy.cli.main import main; main(['config', 'check']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={"PATH": "/bin"}, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "aiohttp",
        "asyncpg",
        "asyncio",
        "uvloop",
        "prometheus_client",
        "proxy.serve",
        "proxy.cli.serve",
    }
