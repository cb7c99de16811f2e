"""What is made of a configuration apart from the event loop, and what is not made again."""

from pathlib import Path
from typing import cast

import pytest

from proxy.config.schema import Config
from proxy.process.generation import Compiled, Generation, compiled
from proxy.upstream.pricing import PriceTableError

RULES = '- {id: own-rule, category: keyword, severity: high, pattern: "%s", boundary: anywhere}\n'


def as_before(config: Config, made: Compiled) -> Generation:
    empty = cast("object", None)
    return Generation(config, made, (), *[empty] * 5)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def first() -> tuple[Config, Compiled]:
    config = Config()
    return config, compiled(config)


def test_compiled_when_nothing_changed_then_rules_and_prices_are_the_same_objects(
    first: tuple[Config, Compiled],
) -> None:
    config, made = first
    changed = Config.model_validate({"limits": {"connections": 7}})
    again = compiled(changed, as_before(config, made))
    assert (again.policies, again.prices) == (made.policies, made.prices)
    assert again.policies is made.policies


def test_compiled_when_a_section_changed_then_what_is_made_of_it_is_new(first: tuple[Config, Compiled]) -> None:
    config, made = first
    changed = Config.model_validate({"policy": {"scan_outputs": False}, "prices": {"unknown_model": "free"}})
    again = compiled(changed, as_before(config, made))
    assert again.policies is not made.policies
    assert again.prices is not made.prices
    assert not again.policies.prepare().scan_outputs


def test_compiled_when_only_the_content_of_a_file_changed_then_it_is_read_again(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 1, output: 2}\n")
    config = Config.model_validate({"prices": {"file": str(prices)}, "policy": {"scan_outputs": False}})
    made = compiled(config)
    before = as_before(config, made)
    assert compiled(config, before).prices is made.prices
    prices.write_text("m: {input: 1, output: 2}\nn: {input: 3, output: 4}\n")
    again = compiled(config, before)
    assert (made.prices.knows("n"), again.prices.knows("n")) == (False, True)
    assert again.policies is made.policies
    assert again.digests["prices.file"] != made.digests["prices.file"]


def test_compiled_when_a_file_has_a_mistake_then_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("m: {input: dear}\n")
    config = Config.model_validate({"prices": {"file": str(tmp_path / "prices.yaml")}})
    with pytest.raises(PriceTableError):
        compiled(config)
