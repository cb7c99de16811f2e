"""Samples are told from secrets."""

from proxy.policy.placeholders import is_placeholder, is_published, is_reference


def test_samples_are_recognised() -> None:
    assert is_placeholder("sk-your-key-here")
    assert is_published("AKIAIOSFODNN7EXAMPLE")
    assert is_reference("${TOKEN}")
