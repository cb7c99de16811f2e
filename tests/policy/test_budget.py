"""What a project's own rules may cost is bounded, each alone and all together, before RE2 compiles."""

import time

import pytest
import re2

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings, parse
from proxy.policy import patterns
from proxy.policy.budget import Budget
from proxy.policy.policy import own_rules
from proxy.policy.ready import Policies
from proxy.policy.rules import RuleError, keyword_rule


def security_of(**members: list[str]) -> SecuritySettings:
    return SecuritySettings.model_validate({**members})


def test_pattern_when_too_large_then_it_is_told_what_to_lower_and_the_others_count():
    settings, problems = parse({"security": {"secretPatterns": [r"Z\pL{1,20}", r"Z\pL{250}", r"Z\pL+"]}})
    assert settings.security.secret_patterns == (r"Z\pL{1,20}", r"Z\pL+")
    assert problems == ("security.secretPatterns[1]: is too large for RE2: lower the upper bounds of its repeats",)
    made, problems = own_rules(settings.security)  # where the repeat without a bound has got one
    assert len(made) == 1
    (problem,) = problems
    assert problem.startswith("security.secretPatterns[1]: is too large for RE2")
    assert "a repeat without one gets 256" in problem


@pytest.mark.parametrize(
    "members",
    [
        {"secretPatterns": [rf"Z{number}\pL{{34}}" for number in range(100)]},  # gates
        {"secretPatterns": [rf"Z{number}(?:\pL{{4}}x){{4}}" for number in range(100)]},  # closures
        {"blockedKeywords": [f"{number} {'word ' * 30}" for number in range(500)]},  # exact patterns
    ],
    ids=["gates", "closures", "alone"],
)
def test_rules_when_too_large_together_then_those_that_fit_count_and_one_problem_tells_of_the_rest(members):
    began = time.process_time()
    made, problems = own_rules(security_of(**members))
    (member, texts), *_ = members.items()
    assert 0 < len(made) < len(texts)
    assert [problem.partition(":")[0] for problem in problems] == [f"security.{member}[{len(made)}]"]
    assert "too large together" in problems[0]
    assert time.process_time() - began < 20


def test_rules_when_usual_then_as_many_fit_as_a_project_may_have():
    members = {
        "blockedKeywords": [f"project zeus{number}" for number in range(500)],
        "secretPatterns": [rf"zeus{number}-[A-Za-z0-9_-]{{20,}}[^ ]{{1,80}}" for number in range(100)],
    }
    made, problems = own_rules(security_of(**members))
    assert (len(made), problems) == (600, [])


async def test_policy_when_a_project_has_rules_that_do_not_fit_then_it_is_built_with_the_others():
    security = SecuritySettings.model_construct(
        blocked_keywords=(), secret_patterns=(r"Z\pL{230}", "zeus-[0-9]{8}"), allow_list=()
    )
    policy = await Policies(Settings()).get(security)
    assert len(policy.own) == 1


def test_budget_when_a_text_is_no_pattern_then_it_costs_nothing():
    budget = Budget()
    budget.admit("(")
    budget.admit("\ud800")
    budget.charge(keyword_rule("zeus"))
    assert not budget.is_spent


def test_keyword_when_it_is_a_sentence_then_it_fits_and_comments_may_separate_its_words():
    words = " ".join(f"word{number}" for number in range(40))
    assert len(words) > 200, "the longest keyword"
    Budget().admit(patterns.keyword(words[:200]))
    assert re2.search(patterns.keyword("keep this for us alone"), "KEEP this \n for/* all */us -- of\nalone")


def test_keyword_when_it_consists_of_single_letters_then_it_is_too_large():
    with pytest.raises(RuleError, match="too large for RE2"):
        Budget().admit(patterns.keyword("a " * 100))
