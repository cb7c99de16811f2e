"""A mask keeps little, always the same, and breaks nothing it stands in."""

import random

import pytest

from proxy.nouns.findings import Finding
from proxy.policy.mask import STARS, kept, mask, redact


@pytest.mark.parametrize(
    ("secret", "head"),
    [
        ("ghp_abcdefghijklmnop", "ghp_"),
        ("abcdefghijkl", "abc"),
        ("abc", ""),
        ('"bcdefghijklmnopq', ""),
        ("ab.defghijklmnopq", "ab"),
        ("é" * 20, ""),
        ("", ""),
    ],
    ids=["four", "a quarter", "short", "unsafe", "safe up to a point", "other scripts", "empty"],
)
def test_mask_keeps_at_most_four_safe_characters_and_a_quarter(secret: str, head: str) -> None:
    assert mask(secret) == head + STARS


def test_kept_of_a_long_secret_needs_no_more_than_its_head() -> None:
    assert kept("ghp_", 16) + STARS == mask("ghp_" + "x" * 1000)


def found(start: int, end: int) -> Finding:
    return Finding("rule", "secret", "high", start, end)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], "0123456789"),
        ([(2, 6)], f"012{STARS}6789"),
        ([(2, 6), (4, 9)], f"012{STARS}9"),
        ([(6, 8), (2, 4), (4, 6)], f"01{STARS}{STARS}{STARS}89"),
        ([(0, 10), (3, 4)], "01" + STARS),
    ],
    ids=["none", "one", "overlapping", "adjoining, out of order", "one inside another"],
)
def test_redact_masks_what_overlaps_as_one(spans: list[tuple[int, int]], expected: str) -> None:
    assert redact("0123456789", [found(*span) for span in spans]) == expected


@pytest.mark.parametrize("is_in_order", [True, False], ids=["in order", "in any order"])
def test_redact_when_much_is_found_then_every_part_is_masked(is_in_order: bool) -> None:
    text = "".join(f"{number:06}-" for number in range(20_000))
    findings = [found(at, at + 6) for at in range(0, len(text), 7)]
    if not is_in_order:
        random.Random(1).shuffle(findings)
    assert redact(text, findings) == "".join(f"{number:06}"[:1] + STARS + "-" for number in range(20_000))
