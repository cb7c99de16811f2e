"""What a policy is made of: the process's configuration, rules files, and what a project says."""

import pytest
import yaml

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings, parse
from proxy.nouns.findings import Finding
from proxy.policy.policy import NO_SECURITY, load_rules, own_rules
from proxy.policy.rules import RuleError
from tests.policy.policies import policy_of

OWN = SecuritySettings(blocked_keywords=("project zeus",), secret_patterns=("ZEUS-[0-9]{8}",))


def rule_ids(policy, text):
    return [found.rule_id for found in policy.detector.find(text)]


def test_policy_when_a_project_says_nothing_then_the_process_decides():
    policy = policy_of(scan_prompts=False, redact_secrets=False)
    assert (policy.scan_prompts, policy.scan_outputs, policy.redacts) == (False, True, False)


def test_policy_when_a_project_decides_then_it_wins():
    policy = policy_of(SecuritySettings(scan_prompts=True, scan_outputs=False), scan_prompts=False)
    assert (policy.scan_prompts, policy.scan_outputs, policy.redacts) == (True, False, True)


def test_policy_when_a_project_has_rules_of_its_own_then_they_are_found_and_named_without_their_text():
    policy = policy_of(OWN)
    (keyword,) = rule_ids(policy, "about Project\n Zeus, you see")
    (pattern,) = rule_ids(policy, "x ZEUS-12345678")
    assert {keyword, pattern} == policy.own
    assert keyword.startswith("keyword-") and pattern.startswith("pattern-")
    assert rule_ids(policy_of(), "Project Zeus ZEUS-12345678") == []


def test_policy_when_a_keyword_is_blocked_by_a_project_then_prompts_stop_and_answers_are_flagged():
    policy = policy_of(OWN)
    (keyword,) = policy.detector.find("project zeus")
    (pattern,) = policy.detector.find("ZEUS-12345678")
    assert (policy.prompt(keyword), policy.output(keyword)) == ("block", "flag")
    assert (policy.prompt(pattern), policy.output(pattern)) == ("block", "redact")


def test_policy_when_a_project_allows_a_text_then_it_is_no_finding_and_its_neighbours_are():
    policy = policy_of(SecuritySettings(secret_patterns=("ZEUS-[0-9]{8}",), allow_list=("ZEUS-00000000",)))
    assert len(rule_ids(policy, "ZEUS-00000000")) == 0
    assert len(rule_ids(policy, "ZEUS-00000001")) == 1


def test_policy_when_a_project_sets_actions_then_they_win_over_the_configuration():
    policy = policy_of(SecuritySettings(prompt_actions={"pii": "redact"}), prompt_actions={"pii.medium": "block"})
    assert policy.prompt(Finding("email", "pii", "medium", 0, 1)) == "redact"


def test_version_when_anything_that_decides_differs_then_it_differs():
    versions = {
        policy_of().version,
        policy_of(OWN).version,
        policy_of(SecuritySettings(prompt_actions={"pii": "redact"})).version,
        policy_of(redact_secrets=False).version,
    }
    assert len(versions) == 4
    assert policy_of().version == policy_of().version


def test_own_rules_when_a_pattern_cannot_be_used_then_the_others_count_and_it_is_not_quoted():
    security = SecuritySettings.model_construct(
        blocked_keywords=("fine",), secret_patterns=("secret(?=x)", "x+"), allow_list=()
    )
    rules, problems = own_rules(security)
    assert len(rules) == 2
    (problem,) = problems
    assert problem.startswith("security.secretPatterns[0]:")
    assert "secret(" not in problem


def test_load_rules_when_a_file_is_given_then_its_rules_replace_and_add(tmp_path):
    file = tmp_path / "rules.yaml"
    entry = {"category": "secret", "severity": "low", "pattern": "ZEUS-[0-9]{8}", "match": ["ZEUS-12345678"]}
    file.write_text(yaml.safe_dump({"rules": [{"id": "github-token", **entry}, {"id": "zeus", **entry}]}))
    shipped, laid = load_rules(None), load_rules(str(file))
    assert len(laid.rules) == len(shipped.rules) + 1
    assert next(rule for rule in laid.rules if rule.id == "github-token").severity == "low"


def test_load_rules_when_the_file_is_missing_then_the_error_names_it(tmp_path):
    with pytest.raises(RuleError, match=r"none\.yaml"):
        load_rules(str(tmp_path / "none.yaml"))


def test_security_when_a_pattern_is_not_re2_then_it_is_refused_with_the_reason_and_the_rest_counts():
    settings, problems = parse(
        {
            "security": {
                "secretPatterns": ["(?=x)y"],
                "promptActions": {"secret.high": "flag"},
                "allowList": ["x"],
                "outputActions": {"secret.higher": "flag"},
            }
        }
    )
    assert settings.security.prompt_actions == {"secret.high": "flag"}
    assert settings.security.secret_patterns == ()
    assert len(problems) == 2
    assert any("look-around" in problem for problem in problems)


def test_settings_when_nothing_is_said_then_everything_is_scanned_and_faults_close():
    settings = Settings()
    assert (settings.scan_prompts, settings.scan_outputs, settings.redact_secrets) == (True, True, True)
    assert (settings.on_fault, settings.unscannable) == ("closed", "allow")
    assert NO_SECURITY == SecuritySettings()
