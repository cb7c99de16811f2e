"""What is known is not compiled again, and what is new in parts."""

import gc

import pytest

from proxy.policy.gates import Gates, Search, in_parts

WORDS = [f"word{number:03}" + "x" * 500 for number in range(100)]


def hits(search: Search, *texts: str) -> list[int]:
    return sorted(search.hits(" ".join(texts).encode()))


def serving(gates: Gates) -> Gates:
    gates.begin_serving()
    return gates


def test_search_before_the_process_serves_is_one_pass() -> None:
    search = Gates().search("loop", WORDS)
    assert len(search.gates) == 1
    assert hits(search, WORDS[3], WORDS[77]) == [3, 77]


def test_search_when_it_is_of_one_gate_then_it_costs_no_more_than_that() -> None:
    search = Gates().search("loop", ["a", "b", "a"])
    assert search.hits == search.gates[0].hits
    assert hits(search, "a") == [0, 2]


def test_search_when_the_process_serves_is_compiled_in_parts_and_tells_the_same() -> None:
    search = serving(Gates()).search("loop", WORDS)
    assert max(sum(map(len, gate.patterns)) for gate in search.gates) <= 15_000
    assert hits(search, WORDS[3], WORDS[77]) == [3, 77]
    assert hits(search, "nothing") == []


def test_search_for_what_is_known_compiles_nothing() -> None:
    gates = Gates()
    whole = gates.search("loop", WORDS)
    assert serving(gates).search("loop", WORDS).gates == whole.gates
    assert gates.search("thread", WORDS).gates != whole.gates


def test_search_for_more_than_is_known_compiles_the_rest() -> None:
    gates = Gates()
    whole = gates.search("loop", WORDS)
    more = serving(gates).search("loop", ["first", *WORDS[50:], "mid", *WORDS[:50], "mid"])
    assert more.gates[0] is whole.gates[0] and [gate.patterns for gate in more.gates[1:]] == [("first", "mid", "mid")]
    assert hits(more, "first", "mid", WORDS[50], WORDS[0]) == [0, 1, 51, 52, 102]


def test_search_for_less_than_is_known_does_not_tell_the_rest() -> None:
    gates = Gates()
    whole = gates.search("loop", WORDS)
    less = serving(gates).search("loop", WORDS[10:])
    assert less.gates == whole.gates
    assert hits(less, WORDS[3], WORDS[11]) == [1]


def test_search_when_rules_have_changed_again_and_again_then_it_takes_few_passes() -> None:
    gates, wanted = Gates(), [*WORDS]
    search = gates.search("loop", wanted)
    gates.begin_serving()
    for number in range(40):
        wanted[number] = f"other{number:02}"
        search = gates.search("loop", wanted)
        assert hits(search, f"other{number:02}", WORDS[50]) == [number, 50]
    assert len(search.gates) <= 6


@pytest.mark.parametrize("known", [[], ["a", "b", "c", "d", "e"]])
def test_search_when_little_of_it_is_known_then_it_is_not_used(known: list[str]) -> None:
    gates = Gates()
    former = gates.search("loop", known)
    search = serving(gates).search("loop", ["a", "f"])
    assert [gate.patterns for gate in search.gates] == [("a", "f")]
    assert hits(search, "f") == [1]
    assert former.gates != search.gates


def test_search_for_nothing_tells_nothing() -> None:
    assert hits(Gates().search("loop", []), "text") == hits(serving(Gates()).search("loop", []), "text") == []


def test_what_nobody_uses_is_forgotten() -> None:
    gates = Gates()
    search = gates.search("loop", WORDS)
    assert len(gates._known["loop"]) == 1
    del search
    gc.collect()
    assert len(gates._known["loop"]) == 0


def test_in_parts_keeps_the_order_and_cuts_no_pattern() -> None:
    assert in_parts(["a" * 6, "b" * 4, "c", "d" * 30, "e"], 10) == [["a" * 6, "b" * 4], ["c"], ["d" * 30], ["e"]]
    assert in_parts([]) == [[]]
