"""A project's policy is built once per version of its settings, off the event loop, and waited for within a bound."""

import asyncio
import random
import string
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import re2

from proxy.config.policy import Policy as Settings
from proxy.config.project import SecuritySettings
from proxy.errors import PolicyUnavailable
from proxy.policy import prefixes
from proxy.policy.policy import NO_SECURITY
from proxy.policy.ready import Policies

LARGEST = 25_000
"""Characters of patterns. Parts have 20,000, but no pattern is cut: what may be open of one rule is 21,600."""


def own(word: str) -> SecuritySettings:
    return SecuritySettings(blocked_keywords=(word,))


@pytest.fixture(scope="module")
def shared() -> Policies:
    policies = Policies(Settings(max_projects=2))
    policies.prepare()
    return policies


async def test_policy_when_a_project_decides_nothing_then_it_is_that_of_the_process(shared):
    default = shared.get_now(NO_SECURITY)
    assert default is shared.prepare() is await shared.get(NO_SECURITY) is await shared.get(SecuritySettings())


def test_policy_when_it_is_prepared_then_what_only_base64_needs_is_not_compiled():
    with ThreadPoolExecutor(1) as threads:
        policy = threads.submit(Policies(Settings()).prepare).result()
    gates = {"_gate", "_gate_apart", "_gate_of_short"}
    assert {*gates, "_parts"} & vars(policy.detector).keys() == gates


@pytest.fixture
def compiled(monkeypatch):
    """The sizes of what RE2 is asked to compile in one call, in characters of patterns."""
    sizes, compile_pattern, make = [], re2.compile, re2.Set.SearchSet

    class Watched:
        def __init__(self, options):
            self._made, self._size = make(options), 0
            self._set = self._made._set

        def Add(self, pattern):
            self._size += len(pattern)
            self._made.Add(pattern)

        def Compile(self):
            sizes.append(self._size)
            self._made.Compile()

    def watched(pattern, options):
        sizes.append(len(pattern))
        return compile_pattern(pattern, options)

    monkeypatch.setattr(re2, "compile", watched)
    monkeypatch.setattr(re2.Set, "SearchSet", Watched)
    return sizes


def exercise(policy):
    """Use all that may be compiled on demand, as threads do."""
    chance = random.Random(5)
    letters = "".join(chance.choices(string.ascii_letters + string.digits, k=30_000))
    texts = [letters, "Nothing but a few words. " * 2000, *(rule.match[0] for rule in policy.detector.rules.rules)]
    with ThreadPoolExecutor(1) as threads:
        for text in texts:
            threads.submit(policy.detector.find, text).result()
            for plan in (policy.output_plan, policy.prompt_plan):
                threads.submit(lambda plan=plan, text=text: [scanner := plan.scanner(), *scanner.pieces(text)]).result()


def test_policy_when_it_is_used_then_nothing_large_is_compiled(compiled):
    policy = Policies(Settings()).prepare()
    assert max(compiled) > LARGEST
    compiled.clear()
    exercise(policy)
    assert compiled and max(compiled) < LARGEST


@pytest.mark.parametrize(
    "settings", [Settings(), Settings(output_actions={"us-ssn": "flag"})], ids=["rules", "actions"]
)
def test_policy_when_the_configuration_is_reloaded_then_what_is_known_is_not_compiled_again(
    compiled, settings, tmp_path
):
    policies = Policies(Settings())
    former = policies.prepare()
    compiled.clear()
    if settings == Settings():
        (tmp_path / "more.yaml").write_text(
            "rules: [{id: mine, category: secret, severity: high, pattern: 'mine-[a-z]{9}', match: ['mine-qzkwhvxjp']}]"
        )
        settings = Settings(rules_file=str(tmp_path / "more.yaml"))
    after = Policies(settings, policies.gates).prepare()
    assert after.version != former.version
    shared = set(former.detector._gate.gates) & set(after.detector._gate.gates)
    assert len(shared) == 1 and len(after.detector._gate.gates) == (2 if settings.rules_file else 1)
    assert set(former.output_plan.held._glance.gates) & set(after.output_plan.held._glance.gates)
    exercise(after)
    assert max(compiled) < LARGEST
    assert [found.rule_id for found in after.detector.find("mine-qzkwhvxjp")] == (
        ["mine"] if settings.rules_file else []
    )


def test_policy_when_it_is_built_then_nothing_is_kept_that_only_building_needs():
    policy = Policies(Settings()).prepare()
    assert prefixes.parse.cache_info().currsize == 0
    compiled = [matcher for matcher in policy.detector.matchers if "_pattern" in vars(matcher)]
    assert len(compiled) < len(policy.detector.matchers) / 10


async def test_policy_of_the_process_when_it_is_not_built_yet_then_requests_wait_for_one_build(monkeypatch):
    policies, built, make = Policies(Settings()), [], Policies._made

    def watched(self, security):
        built.append(threading.current_thread() is threading.main_thread())
        return make(self, security)

    monkeypatch.setattr(Policies, "_made", watched)
    assert policies.get_now(NO_SECURITY) is None
    asked = [policies.get(NO_SECURITY, "p"), policies.get(SecuritySettings(), "q"), asyncio.to_thread(policies.prepare)]
    first, second, prepared = await asyncio.gather(*asked)
    assert first is second is prepared is policies.get_now(NO_SECURITY)
    assert built == [False]


async def test_policy_when_asked_for_at_once_then_it_is_built_once_in_a_thread(shared, monkeypatch):
    built, build = [], Policies._build

    def watched(self, security):
        built.append(threading.current_thread() is threading.main_thread())
        return build(self, security)

    monkeypatch.setattr(Policies, "_build", watched)
    security = own("once")
    assert shared.get_now(security) is None
    first, second = await asyncio.gather(shared.get(security), shared.get(security))
    assert first is second is shared.get_now(security)
    assert await shared.get(own("once")) is first
    assert built == [False]


async def test_policies_when_there_are_too_many_then_the_longest_unused_is_made_anew(shared):
    settings = [own(word) for word in ("a1", "b1", "c1")]
    for security in settings[:2]:
        await shared.get(security)
    assert shared.get_now(settings[0]) is not None
    await shared.get(settings[2])
    assert [shared.get_now(security) is not None for security in settings] == [True, False, True]


async def test_policy_when_it_is_not_ready_in_time_then_it_is_unavailable_and_ready_later(monkeypatch):
    policies = Policies(Settings(compile_wait_s=0.01))
    gate, build = threading.Event(), Policies._build

    def slow(self, security):
        gate.wait(10)
        return build(self, security)

    monkeypatch.setattr(Policies, "_build", slow)
    security = own("slow")
    with pytest.raises(PolicyUnavailable) as caught:
        await policies.get(security)
    assert (caught.value.http_status, caught.value.retry_after_s) == (503, 1.0)
    (task,) = policies._building.values()
    gate.set()
    assert await task is policies.get_now(security)


async def test_policy_when_a_changed_one_is_late_then_the_former_one_serves_and_nobody_waits_twice(monkeypatch):
    policies = Policies(Settings())
    former = await policies.get(own("former"), "p")
    gate, build = threading.Event(), Policies._build

    def slow(self, security):
        gate.wait(10)
        return build(self, security)

    monkeypatch.setattr(Policies, "_build", slow)
    security = own("changed")
    policies.settings = Settings(compile_wait_s=0.05)
    assert await policies.get(security, "p") is former
    policies.settings = Settings(compile_wait_s=60)
    assert await policies.get(security, "p") is former
    assert policies.served_former == 2
    policies.settings = Settings(compile_wait_s=0.05)
    for project in ("another", None):
        with pytest.raises(PolicyUnavailable):
            await policies.get(security, project)
    (task,) = policies._building.values()
    gate.set()
    changed = await task
    assert await policies.get(security, "p") is changed is not former
    assert policies._late == set()


async def test_former_policies_when_there_are_too_many_projects_then_the_longest_unused_is_forgotten(shared):
    security = own("many")
    for project in ("a", "b", "a", "c"):
        await shared.get(security, project)
    assert list(shared._former) == ["a", "c"]
