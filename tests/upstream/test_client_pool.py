"""Connections to providers over changes of the configuration: kept where nothing about them changed, then closed."""

import pytest

from proxy.config.schema import Config
from proxy.upstream.client_pool import ClientPool, Clients

ONE = {"name": "one", "base_url": "http://127.0.0.1:1/v1"}


def config(*upstreams: dict[str, object], **settings: object) -> Config:
    return Config.model_validate({"upstreams": upstreams or (ONE,), **settings})


def take(pool: ClientPool, changed: Config, trust: str = "") -> list[Clients]:
    return [pool.take(settings, changed, trust) for settings in changed.providers]


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
async def test_clients_when_the_configuration_changed_then_kept_unless_they_depend_on_that(
    changed: Config, trust: str, is_kept: bool
) -> None:
    pool = ClientPool()
    (before,) = take(pool, config())
    (after,) = take(pool, changed, trust)
    assert (before is after) is is_kept
    await pool.give_back(before)
    assert len(pool) == 1
    await pool.give_back(after)
    assert len(pool) == 0


async def test_clients_when_others_still_use_them_then_they_are_not_closed() -> None:
    pool = ClientPool()
    (one,), (same,) = take(pool, config()), take(pool, config())
    await pool.give_back(one)
    assert pool.take(config().providers[0], config()) is same
    await pool.close()


async def test_close_when_clients_are_taken_then_all_are_closed() -> None:
    pool = ClientPool()
    take(pool, config(ONE, {**ONE, "name": "two"}))
    await pool.close()
    assert len(pool) == 0
