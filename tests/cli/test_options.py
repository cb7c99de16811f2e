import argparse
from pathlib import Path

import pytest

from proxy.cli.options import add_config, add_data_dir, settings
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
