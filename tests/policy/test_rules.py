"""Rules are read with all their mistakes named; parts stand for pieces of patterns."""

from pathlib import Path

import pytest

from proxy.policy.rules import Rule, RuleError, RuleSet, keyword_rule, load, read_document, read_rules

GOOD = {"id": "a", "category": "secret", "severity": "high", "pattern": "k-[a-z]{8,}"}


def test_load_reads_the_shipped_rules() -> None:
    assert len(load().rules) > 50
    assert load().version == load().version


def test_shipped_rules_pass_the_checks_that_other_files_get(tmp_path: Path) -> None:
    document = read_document(Path("config/policy.yaml"))
    assert read_rules(document["rules"], document["parts"]) == list(load().rules)


def test_read_rules_names_every_mistake() -> None:
    with pytest.raises(RuleError) as caught:
        read_rules([{"id": "a"}, 1, {"id": "b", "category": "x", "severity": "high", "pattern": "(?=a)"}, GOOD, GOOD])
    assert caught.value.problems == (
        "a: `category` is missing",
        "a: `severity` is missing",
        "a: `pattern` is missing",
        "rule 2: must be a mapping",
        "b: `category` must be one of secret, pii, keyword, command",
        "b: `pattern` uses a look-around assertion, which no linear-time engine has",
        "a: the id is taken",
        "a: the id is taken",
    )


def test_pattern_is_bounded_and_gate_opened() -> None:
    (rule,) = read_rules([GOOD])
    assert (rule.pattern, rule.gate) == ("k-[a-z]{8,264}", "k-[a-z]{8,}")
    assert read_rules([{**GOOD, "gate": "k-.{0,9}"}])[0].gate == "k-.*"


def test_parts_stand_for_pieces_of_patterns() -> None:
    (rule,) = read_rules([{**GOOD, "pattern": "k{{gap}}[a-z]{4}"}], {"gap": "(?:-|_)"})
    assert rule.pattern == "k(?:-|_)[a-z]{4}"
    (rule,) = read_rules([{**GOOD, "pattern": "k{{gaps}}[a-z]{4}"}], {"gap": "(?:-|_)", "gaps": "{{gap}}{1,3}"})
    assert rule.pattern == "k(?:-|_){1,3}[a-z]{4}"
    with pytest.raises(RuleError, match="names a part that is not there: gap"):
        read_rules([{**GOOD, "pattern": "k{{gap}}[a-z]{4}"}])


def test_with_extra_replaces_by_id() -> None:
    keyword = keyword_rule("drop it")
    assert RuleSet((keyword,)).with_extra([keyword]).rules == (keyword,)
    assert isinstance(keyword, Rule)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rules: [", "not YAML"),
        ("- a", "must hold a list of rules"),
        ("rules: 1", "must hold a list of rules"),
        ("rules: []\nparts: [a]", "`parts` must map names"),
        ("rules: []\nparts: {a: 1}", "`parts` must map names"),
        ("rules: [{id: a}]", "a: `pattern` is missing"),
    ],
)
def test_load_when_a_file_is_wrong_then_says_so(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(RuleError, match=complaint):
        load(file)


def test_load_reads_a_file_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="No such file"):
        load(tmp_path / "none.yaml")
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{id: a, category: pii, severity: low, pattern: 'a{{slash}}a', until: }]")
    assert [rule.id for rule in load(file).rules] == ["a"]
