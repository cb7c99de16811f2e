import shutil
import subprocess

import pytest

from proxy.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("shell") / "sidegate.bash"

    def write(capsys) -> str:
        if not path.exists():
            assert main(["completion", "bash"]) == 0
            path.write_text(capsys.readouterr().out)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["traces"]),
        (["keys", ""], ["create", "list", "rotate", "revoke"]),
        (["projects", "con"], ["config", "configure"]),
        (["keys", "create", "--sur"], ["--surface"]),
        (["--ver"], ["--version"]),
        (["projects", "list", "--state", "a"], ["active", "archived", "all"]),
        (["users", "set", "alice", "o"], ["owner"]),
        (["completion", "f"], ["fish"]),
        (["traces", "tail", "--project", "x"], []),
        (["nonsense", ""], list(COMMANDS)),
    ],
)
def test_bash_offers_what_may_follow(words: list[str], offered: list[str], script, capsys) -> None:
    typed = " ".join(f"'{word}'" for word in ["sidegate", *words])
    line = (
        f'source {script(capsys)}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _sidegate; echo "${{COMPREPLY[@]}}"'
    )
    shell = shutil.which("bash")
    assert shell is not None
    said = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=True)
    assert (said.stdout.split(), said.stderr) == (offered, "")


def test_zsh_uses_the_same_and_fish_names_every_command(capsys) -> None:
    assert main(["completion", "zsh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["autoload -U +X bashcompinit && bashcompinit", "_sidegate() {"]
    assert main(["completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert any(line.startswith("complete -c sidegate") and f" -a {name} -d '" in line for line in lines), name
    assert [line for line in lines if "-l state" in line] == [
        'complete -c sidegate -n "__fish_seen_subcommand_from projects; and __fish_seen_subcommand_from list" '
        "-l state -x -a 'active archived all' -d 'default: active'"
    ]
