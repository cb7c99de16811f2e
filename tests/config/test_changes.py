from pathlib import Path
from typing import Any

import pytest

from proxy.config.changes import FIXED, as_far_as_possible, changed_keys, fallen_back, is_fixed, version
from proxy.config.keys import KEYS, SECTIONS
from proxy.config.load import Loaded, load
from proxy.config.schema import Config


def config(**settings: Any) -> Config:
    return Config.model_validate(settings)


def test_changed_keys_when_nothing_differs_then_none() -> None:
    assert changed_keys(config(), config()) == ()


def test_changed_keys_when_values_differ_then_their_names_alone() -> None:
    old = config(upstream={"api_key": "sk-one"}, limits={"connections": 5})
    new = config(upstream={"api_key": "sk-two"}, limits={"connections": 5}, upstreams=[{"name": "a"}])
    assert changed_keys(old, new) == ("upstream.api_key", "upstreams")


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("data_dir", True),
        ("server.listen.port", True),
        ("server.drain_s", False),
        ("database.url", True),
        ("cache.ttl_s", True),
        ("server.kind", True),
        ("upstream.api_key", False),
        ("projects.max_projects", True),
        ("projects.poll_s", False),
    ],
)
def test_is_fixed_when_asked_then_addresses_files_and_the_pool_are(name: str, fixed: bool) -> None:
    assert is_fixed(name) is fixed


def test_fixed_when_listed_then_each_exists() -> None:
    assert set(FIXED) <= set(KEYS) | SECTIONS


def test_as_far_as_possible_when_much_changed_then_what_is_fixed_stays() -> None:
    running = config(data_dir="a", server={"listen": {"port": 1}, "drain_s": 1}, database={"pool_size": 1})
    wanted = config(data_dir="b", server={"listen": {"port": 2}, "drain_s": 2}, journal={"batch_records": 1})
    got = as_far_as_possible(running, wanted)
    assert (got.data_dir, got.server.listen.port, got.database.pool_size) == ("a", 1, 1)
    assert got.journal == running.journal
    assert got.server.drain_s == 2
    assert all(is_fixed(name) for name in changed_keys(got, wanted))


def test_version_when_only_secrets_differ_then_it_is_the_same() -> None:
    one = config(admin_key="a" * 20, upstream={"api_key": "k1", "headers": {"api-key": "s1"}})
    two = config(admin_key="b" * 20, upstream={"api_key": "k2", "headers": {"api-key": "s2"}})
    assert version(one, {}) == version(two, {})
    several = [config(upstreams=[{"name": "a", "api_key": key, "headers": {"x": key}}]) for key in ("k1", "k2")]
    assert version(several[0], {}) == version(several[1], {})


def test_version_when_a_setting_or_a_file_differs_then_it_is_another() -> None:
    names = {
        version(config(), {}),
        version(config(limits={"connections": 5}), {}),
        version(config(), {"prices.file": "1"}),
        version(config(), {"prices.file": "2"}),
        version(config(upstreams=[{"name": "a"}]), {}),
    }
    assert len(names) == 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["sets nothing any more", "names no provider any more"]),
        ("# nothing\nauth:\n", ["sets nothing any more", "names no provider any more"]),
        ("auth: {mode: keys}\n", ["names no provider any more"]),
        ("upstream: {base_url: 'http://h/v1'}\n", []),
    ],
)
def test_fallen_back_when_a_file_was_cut_then_it_says_what_is_lost(text: str, told: list[str], tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"

    def read(text: str, **environ: str) -> Loaded:
        file.write_text(text)
        return load(file, environ, {})

    running = read("auth: {mode: keys}\nupstream: {base_url: 'http://h/v1'}\n")
    problems = list(fallen_back(running, read(text)))
    assert [str(problem).partition(": ")[2].partition(",")[0].partition(";")[0] for problem in problems] == told
    assert all(str(problem).startswith(f"{file}: ") for problem in problems)
    assert list(fallen_back(read(""), read(text))) == [], "it was the demo's before"
    assert not any("provider" in problem.text for problem in fallen_back(running, read(text, OPENAI_API_KEY="k")))
    assert list(fallen_back(load(None, {}, {}), load(None, {}, {}))) == []
