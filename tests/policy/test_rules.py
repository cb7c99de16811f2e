"""Rules are read with all their mistakes named."""

import pytest

from proxy.policy import rules
from proxy.policy.rules import RuleError, RuleSet, keyword_rule, load, read_rules


def test_load_reads_the_shipped_rules() -> None:
    assert len(load().rules) > 50
    assert load().version == load().version


def test_read_rules_names_every_mistake() -> None:
    with pytest.raises(RuleError) as caught:
        read_rules([{"id": "a"}, 1, {"id": "b", "category": "x", "severity": "high", "pattern": "(?=a)"}])
    assert len(caught.value.problems) == 6


def test_with_extra_replaces_by_id() -> None:
    keyword = keyword_rule("drop it")
    assert RuleSet((keyword,)).with_extra([keyword]).rules == (keyword,)
    assert rules.Rule is type(keyword)
