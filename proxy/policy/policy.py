"""One policy, ready for use: compiled rules, actions and a version. Of one project, or of all others.

    configuration + rules files  ------------------------------>  Policy of every project without settings
              '-- + projects.config.security of one project -->  Policy of that project

A project's own patterns and keywords are rules like any other, layered over the files'. Their ids contain a hash of
their text (`keyword-1f00c2d4`), so a trace identifies a rule without quoting it. A keyword that a project blocks is
blocked in prompts, as the setting's name says, and flagged in answers.

Building a policy costs tens of milliseconds; it is done on a thread (see `ready`).
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from proxy.config.policy import Policy as Settings
from proxy.config.project import DEFAULT, SecuritySettings
from proxy.nouns.findings import Action, Verdict
from proxy.policy import patterns, rules
from proxy.policy.actions import DEFAULTS, Actions
from proxy.policy.budget import Budget
from proxy.policy.detect import Detector
from proxy.policy.gates import Gates
from proxy.policy.rules import Rule, RuleError, RuleSet, keyword_rule, read_rules
from proxy.policy.stream_scan import StreamPlan

NO_SECURITY: Final = DEFAULT.security


class Policy:
    """Rules and actions. Immutable, so any thread may use it."""

    def __init__(
        self,
        settings: Settings,
        security: SecuritySettings,
        detector: Detector,
        own: frozenset[str],
    ) -> None:
        self.scan_prompts = _decided(security.scan_prompts, settings.scan_prompts)
        self.scan_outputs = _decided(security.scan_outputs, settings.scan_outputs)
        self.redacts = _decided(security.redact_secrets, settings.redact_secrets)
        self.detector = detector
        self.own = own
        """Ids of the project's own rules: too many for labels of metrics."""
        blocked: dict[str, Action] = {rule_id: "block" for rule_id in own if rule_id.startswith("keyword-")}
        in_prompts = ({**blocked, **security.prompt_actions}, settings.prompt_actions, DEFAULTS["prompt"])
        in_outputs = (security.output_actions, settings.output_actions, DEFAULTS["output"])
        self.prompt = Actions(in_prompts, redacts=self.redacts)
        self.output = Actions(in_outputs, redacts=self.redacts)
        self.version = _version(settings, security, detector.rules)

    @cached_property
    def prompt_plan(self) -> StreamPlan:
        """The plan for texts of a request that is streamed; see `prepare_uploads`."""
        return StreamPlan(self.detector, self.prompt, glances=False)

    @cached_property
    def output_plan(self) -> StreamPlan:
        """The plan for generated text."""
        return StreamPlan(self.detector, self.output)

    def compile_gates(self) -> None:
        """Compile what takes one long call, unless it is known (`gates`)."""
        self.detector.prepare()
        if self.scan_outputs:
            self.output_plan  # noqa: B018

    def prepare(self) -> None:
        """Build now what the first request would otherwise build. Takes a tenth of a second or more."""
        self.detector.prepare()
        if self.scan_outputs:
            self.output_plan.warm_up()

    @property
    def has_prepared_uploads(self) -> bool:
        """True once `prompt_plan` is built: 5 MB and 0.2 s that a process without uploads is spared."""
        return "prompt_plan" in self.__dict__

    def prepare_uploads(self) -> None:
        """Build `prompt_plan`; call it on a thread."""
        self.prompt_plan.warm_up()

    def verdict(self, max_kept: int) -> Verdict:
        """Return an empty verdict."""
        return Verdict(self.version, max_kept)


def load_rules(rules_file: str | None) -> RuleSet:
    """Return the default rules with those of `rules_file` layered over them.

    Raises:
        RuleError: a file cannot be read or contains invalid rules; names every mistake.
    """
    shipped = rules.load()
    return shipped if rules_file is None else shipped.with_extra(rules.load(Path(rules_file)).rules)


def own_rules(security: SecuritySettings) -> tuple[list[Rule], list[str]]:
    """Return the rules that a project adds, and the problems of unusable ones; patterns are not quoted.

    Takes up to some seconds, in calls of RE2 of 50 ms: call it in a thread.
    """
    made: dict[str, Rule] = {}
    problems: list[str] = []
    sources = (
        ("blockedKeywords", security.blocked_keywords, patterns.keyword, keyword_rule),
        ("secretPatterns", security.secret_patterns, patterns.bounded, _pattern_rule),
    )
    budget = Budget()
    for member, texts, exact, make in sources:
        for index, text in enumerate(texts):
            if budget.is_spent:
                break
            try:
                budget.admit(exact(text))
                rule = make(text)
                budget.charge(rule)
            except RuleError as error:
                problems.append(f"security.{member}[{index}]: {error.problems[0].partition(': ')[2]}")
            else:
                made[rule.id] = rule
    return list(made.values()), problems


def detector_of(
    base: RuleSet, security: SecuritySettings, own: Sequence[Rule], gates: Gates | None = None
) -> tuple[Detector, frozenset[str]]:
    """Return the compiled rules of `base` and of a project, and the ids of `own`: those that the project adds.

    `gates`: of the process.
    """
    rule_set = base.with_extra(own)
    if security.allow_list:
        allowed = tuple(re.escape(text) for text in security.allow_list)
        rule_set = RuleSet(tuple(replace(rule, allow=(*rule.allow, *allowed)) for rule in rule_set.rules))
    return Detector(rule_set, gates), frozenset(rule.id for rule in own)


def _pattern_rule(pattern: str) -> Rule:
    entry = {
        "id": f"pattern-{_digest(pattern.encode())}",
        "category": "secret",
        "severity": "high",
        "pattern": pattern,
        "boundary": "anywhere",
        "placeholders": False,
    }
    return read_rules([entry])[0]


def _decided(of_project: bool | None, of_process: bool) -> bool:
    return of_process if of_project is None else of_project


def _version(settings: Settings, security: SecuritySettings, rule_set: RuleSet) -> str:
    """Return a name for everything that determines findings and actions."""
    parts = (rule_set.version, security.model_dump_json(), settings.model_dump_json())
    return _digest("\0".join(parts).encode(), 12)


def _digest(data: bytes, length: int = 8) -> str:
    return hashlib.sha256(data).hexdigest()[:length]
