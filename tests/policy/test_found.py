"""Findings of several rules are told in the order of the text."""

from proxy.findings import Finding
from proxy.policy.found import in_characters, merged, place


def finding(rule_id: str, start: int, end: int) -> Finding:
    return Finding(rule_id, "secret", "high", start, end)


def test_merged_is_in_the_order_of_places_and_the_longer_one_first() -> None:
    one = [finding("a", 0, 3), finding("a", 9, 12)]
    other = [finding("b", 0, 5), finding("b", 4, 6)]
    assert merged([one, [], other]) == sorted([*one, *other], key=place) == [other[0], one[0], other[1], one[1]]
    assert merged([[], one]) == one
    assert merged([]) == []


def test_in_characters_counts_a_letter_of_several_bytes_once() -> None:
    data = "é键 key é".encode()
    found = [finding("a", data.index(b"key"), len(data)), finding("b", 0, 2)]
    in_characters(data, found)
    assert [(each.start, each.end) for each in found] == [(3, 8), (0, 1)]
