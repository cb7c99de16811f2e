"""Patterns in a configuration: what RE2 takes, and why not, without quoting them."""

import pytest

from proxy.config.expressions import wrong_pattern


@pytest.mark.parametrize("pattern", ["ZEUS-[0-9]{8}", r"\\1x", "(?i)zeus", "é+"])
def test_pattern_when_re2_takes_it_then_nothing_is_wrong(pattern):
    assert wrong_pattern(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("zeus(?=x)", "look-around"),
        ("(?<!x)zeus", "look-around"),
        (r"(zeus)\1", "back-reference"),
        ("zeus(", "not an RE2 pattern"),
        ("zeus{2000}", "not an RE2 pattern"),
        ("zeus*|", "matches the empty text"),
        ("zeus\ud800", "not an RE2 pattern"),
    ],
)
def test_pattern_when_it_cannot_be_used_then_the_reason_is_told_and_nothing_quoted(pattern, reason):
    wrong = wrong_pattern(pattern)
    assert wrong is not None and reason in wrong
    assert "zeus" not in wrong
