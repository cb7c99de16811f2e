"""Connections to providers over changes of the configuration: kept where nothing about them changed, then closed."""

import pytest

from proxy.config.schema import Config
from proxy.upstream.lines import Line, Lines

ONE = {"name": "one", "base_url": "http://127.0.0.1:1/v1"}


def config(*upstreams: dict[str, object], **settings: object) -> Config:
    return Config.model_validate({"upstreams": upstreams or (ONE,), **settings})


def take(lines: Lines, changed: Config, trust: str = "") -> list[Line]:
    return [lines.take(settings, changed, trust) for settings in changed.providers]


@pytest.mark.parametrize(
    ("changed", "trust", "is_kept"),
    [
        (config(), "", True),
        (config({**ONE, "api_key": "k-2", "headers": {"a": "b"}, "models": {"m": "n"}}), "", True),
        (config(tracing={"content": "full"}), "", True),
        (config({**ONE, "base_url": "http://127.0.0.1:1/v2"}), "", False),
        (config({**ONE, "name": "two"}), "", False),
        (config({**ONE, "max_connections": 2}), "", False),
        (config({**ONE, "timeouts": {"gap_s": 2}}), "", False),
        (config(timeouts={"gap_s": 2}), "", False),
        (config(client={"headers": 10}), "", False),
        (config(), "other certificates", False),
    ],
)
async def test_line_when_the_configuration_changed_then_kept_unless_it_depends_on_that(
    changed: Config, trust: str, is_kept: bool
) -> None:
    lines = Lines()
    (before,) = take(lines, config())
    (after,) = take(lines, changed, trust)
    assert (before is after) is is_kept
    await lines.give(before)
    assert len(lines) == 1
    await lines.give(after)
    assert len(lines) == 0


async def test_line_when_others_still_use_it_then_it_is_not_closed() -> None:
    lines = Lines()
    (one,), (same,) = take(lines, config()), take(lines, config())
    await lines.give(one)
    assert lines.take(config().providers[0], config()) is same
    await lines.close()


async def test_close_when_lines_are_taken_then_all_are_closed() -> None:
    lines = Lines()
    take(lines, config(ONE, {**ONE, "name": "two"}))
    await lines.close()
    assert len(lines) == 0
