import json

RULES = """
parts: {digits: '[0-9]{6}'}
rules:
  - {id: ticket, category: pii, severity: medium, pattern: 'T-{{digits}}', match: ['T-{N6}'], no_match: ['T-{N3}']}
"""


def test_check_of_the_shipped_rules(sidegate):
    done = sidegate("policy", "check")
    assert done.returncode == 0
    assert " rules and " in done.stdout
    assert done.stdout.count("\n") == 1


def test_check_runs_the_examples_of_a_file(sidegate, tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    assert sidegate("policy", "check", "rules.yaml").stdout.startswith("1 rule and 2 examples checked")
    (tmp_path / "rules.yaml").write_text(RULES.replace("{N3}", "{N6}"))
    done = sidegate("policy", "check", "rules.yaml")
    assert (done.returncode, done.stdout) == (1, "ticket: example 1 of `no_match` is found\n")
    assert done.stderr == "sidegate: 1 mistake in rules.yaml\n"


def test_check_names_every_mistake(sidegate, tmp_path):
    (tmp_path / "rules.yaml").write_text("rules: [{id: a, category: pii, severity: hihg, pattern: '(?=a)'}]")
    done = sidegate("policy", "check", "rules.yaml")
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2)
    assert done.stderr == "sidegate: 2 mistakes in rules.yaml\n"


def test_list_prints_rules_with_ones_own_over_them(sidegate, tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    plain = sidegate("policy", "list", "--rules", "rules.yaml").stdout.splitlines()
    assert plain[-1].split() == ["ticket", "pii", "medium"]
    rows = json.loads(sidegate("policy", "list", "--json").stdout)
    assert len(rows) == len(plain) - 1
    assert rows[0]["id"] == plain[0].split()[0]


def test_list_when_the_file_is_wrong_then_fails(sidegate, tmp_path):
    (tmp_path / "rules.yaml").write_text("rules: 1")
    done = sidegate("policy", "list", "--rules", "rules.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "must hold a list of rules" in done.stderr
