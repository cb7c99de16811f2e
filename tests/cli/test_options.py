import argparse
from pathlib import Path

import pytest

from proxy.cli.failure import CommandFailed
from proxy.cli.options import add_config, add_data_dir, read_json, settings, whole_number
from proxy.config.problems import ConfigError


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config(parser)
    add_data_dir(parser)
    parser.add_argument("--listen")
    return parser.parse_args(words)


def test_settings_of_no_option_are_the_defaults(monkeypatch):
    monkeypatch.delenv("SIDEGATE_DATA_DIR", raising=False)
    loaded = settings(parse())
    assert (loaded.path, loaded.config.data_dir) == (None, "var")


def test_settings_of_options_win_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data_dir: f\nserver: {drain_s: 3}")
    loaded = settings(parse("--config", str(file), "--data-dir", "o", "--listen", "h:1"))
    assert loaded.path == Path(file)
    assert (loaded.config.data_dir, loaded.config.server.drain_s, loaded.config.server.listen.host) == ("o", 3, "h")


def test_settings_of_an_empty_option_are_judged_by_the_loader():
    with pytest.raises(ConfigError, match="--listen: must be host:port"):
        settings(parse("--listen", ""))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_read_json_of_something_else_says_what_is_wrong(content, reason, tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(CommandFailed) as caught:
        read_json(str(file))
    assert str(caught.value) == f"{file} {reason}"


@pytest.mark.parametrize("text", ["-1", "", "721", "x", "1.5", "\u0661", "9" * 5000])
def test_whole_number_refuses_what_is_out_of_bounds_or_no_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number from 0 to 720"):
        whole_number(0, 720)(text)


def test_whole_number_takes_its_bounds():
    assert [whole_number(0, 720)(text) for text in ("0", "720")] == [0, 720]
