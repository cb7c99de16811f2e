"""What an exchange's verdict adds up to."""

import pytest

from proxy.nouns.findings import STEP, Action, Finding, Sighting, Unscanned, Verdict, in_steps, let_go


def sighting(action: Action, rule: str = "r") -> Sighting:
    return Sighting(Finding(rule, "secret", "high", 0, 5), action, "prompt", "messages[0].content")


def test_verdict_when_more_is_found_than_kept_then_everything_is_counted():
    verdict = Verdict("v", max_kept=2)
    for _ in range(3):
        verdict.add(sighting("flag"))
        verdict.miss(Unscanned("prompt", "file", "binary"))
    verdict.add(sighting("block"))
    assert (len(verdict.sightings), len(verdict.unscanned)) == (2, 2)
    assert verdict.counts == {("prompt", "r", "flag"): 3, ("prompt", "r", "block"): 1}
    assert verdict.missed == {("prompt", "binary"): 3}


def test_verdict_when_parts_join_then_it_is_as_if_one_had_seen_all():
    whole, joined = Verdict("v", max_kept=3), Verdict("v", max_kept=3)
    for rule in ("a", "b"):
        part = Verdict("v", max_kept=3)
        for verdict in (whole, part):
            verdict.saw("prompt", 5)
            for _ in range(2):
                verdict.add(sighting("flag", rule))
                verdict.miss(Unscanned("prompt", rule, "binary"))
        joined.join(part)
    assert joined == whole
    assert [each.finding.rule_id for each in joined.sightings] == ["a", "a", "b"]


def test_verdict_when_a_finding_is_allowed_then_it_leaves_no_mark():
    verdict = Verdict("v", max_kept=2)
    verdict.add(sighting("allow"))
    assert (verdict.sightings, verdict.counts) == ([], {})


def test_verdict_when_texts_are_scanned_then_their_characters_add_up_by_direction():
    verdict = Verdict("v", max_kept=2)
    verdict.saw("prompt", 3)
    verdict.saw("prompt", 0)
    verdict.saw("output", 4)
    assert verdict.scanned_characters == {"prompt": 3, "output": 4}


@pytest.mark.parametrize("size", [0, 1, STEP, 2 * STEP + 1])
def test_steps_are_all_of_a_list_and_none_is_longer(size: int):
    numbers = [*range(size)]
    parts = [numbers[part] for part in in_steps(size)]
    assert [number for part in parts for number in part] == numbers
    assert all(0 < len(part) <= STEP for part in parts)


def test_findings_when_let_go_then_their_list_is_empty_and_a_tuple_is_left_alone():
    found = [Finding("r", "secret", "high", at, at + 1) for at in range(2 * STEP + 1)]
    kept = tuple(found)
    let_go(found)
    let_go(kept)
    assert (found, len(kept)) == ([], 2 * STEP + 1)
