"""Samples are told from secrets by the value alone."""

import pytest

from proxy.policy import placeholders
from proxy.policy.placeholders import is_placeholder, is_published, is_reference


@pytest.mark.parametrize(
    "value",
    [
        "sk-your-key-here",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sk-{{ key }}",
        "AKIAABCEXAMPLE",
        "key-00000000000000000000",
        "k-a1B2c3D4a1B2c3D4",
        "sk-1234567890abcdefgh",
        "zyxwvutsrq-k",
        "k-ExAmPlE-7dK2m",
        "k-é-not_a_real-7d",
        "&lt;password&gt;",
    ],
)
def test_samples_are_recognised(value: str) -> None:
    assert is_placeholder(value)


def test_keys_are_no_samples() -> None:
    assert not is_placeholder("a8Kd03mZq71LxPw9")
    assert not is_placeholder("aaa")
    assert not is_placeholder("a8Kd03mZq71LxPw9%0A%20%20%20%20%20%20-%20")


def test_published_keys_and_references_are_recognised() -> None:
    assert is_published("AKIAIOSFODNN7EXAMPLE")
    assert is_published("eyJh.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.x")
    assert is_published("2YotnFZFEjr1zCsicMWpAA")
    assert is_published("eyJh.eyJpc3MiOiJzdXBhYmFzZS1kZW1vIiwicm9sZSI6ImFub24ifQ.x")
    assert not is_published("AKIAQWERTYUIOP234567")
    assert (
        is_reference("${TOKEN}")
        and is_reference("op://vault/a")
        and is_reference("%24TOKEN")
        and not is_reference("a8Kd03mZq71Lx")
    )


def test_sequence_is_found_wherever_it_begins() -> None:
    for before in range(30):
        for sequence in ("abcdefghi", "012345678", "zyxwvutsr"):
            text = f"{'Q7' * before}{sequence}Kx0Vm4Rt"
            expected = any(text.lower()[at : at + 9] in placeholders._SEQUENCES for at in range(len(text[:64]) - 8))
            assert placeholders.is_placeholder(text) == expected, text
