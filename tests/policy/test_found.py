"""Findings of several rules are told in the order of the text."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.nouns import findings
from proxy.nouns.findings import Finding
from proxy.policy import found as found_module
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("aé键\U0001f600"), min_size=1, max_size=60), st.data())
def test_in_characters_when_done_in_steps_then_it_is_where_the_text_says(
    monkeypatch: pytest.MonkeyPatch, text: str, data: st.DataObject
) -> None:
    monkeypatch.setattr(findings, "STEP", 3)
    monkeypatch.setattr(found_module, "PIECE", 7)
    places = st.integers(0, len(text))
    spans = sorted(sorted(data.draw(st.tuples(places, places))) for _ in range(data.draw(st.integers(0, 12))))
    found = [finding("a", len(text[:start].encode()), len(text[:end].encode())) for start, end in spans]
    in_characters(text.encode(), found)
    assert [[each.start, each.end] for each in found] == spans
