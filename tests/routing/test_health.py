from collections import Counter

import pytest

from proxy.config.routing import Breaker as Settings
from proxy.config.schema import UpstreamEntry
from proxy.routing.health import Health


def health(*weights: int, **settings) -> Health:
    credentials = [{"api_key": f"k{n}", "weight": weight} for n, weight in enumerate(weights)]
    upstreams = (UpstreamEntry(name="a", credentials=credentials), UpstreamEntry(name="b"))
    return Health(upstreams, Settings(**settings), lambda: 0.5)


def test_credentials_when_used_one_after_another_then_by_weight():
    made, used = health(3, 1), Counter()
    for _ in range(40):
        permit = made.take("a", (), 0)
        used[permit.place[1]] += 1
        permit.judge("success", 0)
        permit.release()
    assert used == {0: 30, 1: 10}


def test_credentials_when_many_run_at_once_then_the_idlest_for_its_weight_is_next():
    made, used = health(3, 1), Counter()
    running = [made.take("a", (), 0) for _ in range(8)]
    used.update(permit.place[1] for permit in running)
    assert used == {0: 6, 1: 2}
    for permit in running:
        if permit.place[1] == 0:
            permit.release()
    assert {made.take("a", (), 0).place[1] for _ in range(5)} == {0}


def test_permit_when_given_back_twice_then_it_counts_once():
    made = health(1)
    permit = made.take("a", (), 0)
    permit.release()
    permit.release()
    permit.judge("failure", 0)
    (first, _) = made.describe(0)
    assert (first["inFlight"], first["outcomes"]) == (0, {})


@pytest.mark.parametrize(
    ("outcome", "state", "until"), [("cooling", "cooling", 7), ("refused", "refused", 300), ("nothing", "closed", 0)]
)
def test_credential_after_what_a_provider_said_is_left_alone_for_so_long(outcome, state, until):
    made = health(1, 1)
    permit = made.take("a", (), 0)
    permit.judge(outcome, 0, 7.0)
    permit.release()
    place = permit.place
    described = {one["credential"]: one for one in made.describe(0) if one["upstream"] == "a"}
    assert described[place[1]]["state"] == state
    other = {("a", 1 - place[1])}
    assert (made.take("a", other, 0) is not None) == (until == 0)
    assert made.take("a", other, until) is not None
    assert made.take("a", {place}, 0) is not None, "the other credential is not concerned"


def test_model_when_its_limit_is_reached_then_others_go_on_at_the_same_credential():
    made = health(1)
    made.take("b", (), 0, "gpt-4o").judge("cooling", 0, 7.0, of_model=True)
    assert made.take("b", (), 6, "gpt-4o") is None
    assert made.take("b", (), 6, "gpt-4o-mini") is not None
    assert made.eligible_in_s({("b", "gpt-4o")}, 2) == 5
    assert made.eligible_in_s({("b", "gpt-4o"), ("b", "o3")}, 2) == 0
    (shown,) = [one for one in made.describe(2) if one["upstream"] == "b"]
    assert (shown["state"], shown["coolingModels"]) == ("closed", {"gpt-4o": 5.0})
    assert made.take("b", (), 7, "gpt-4o") is not None


def test_models_when_too_many_are_limited_then_the_credential_is():
    made = health(1)
    for number in range(65):
        made.retake(("b", 0), 0, f"m{number}").judge("cooling", 0, 7.0, of_model=True)
    assert made.take("b", (), 6, "another") is None
    (shown,) = [one for one in made.describe(6) if one["upstream"] == "b"]
    assert (shown["state"], len(shown["coolingModels"])) == ("cooling", 64)


def test_provider_when_all_is_open_then_it_tells_when_it_can_be_asked_again():
    made = health(1)
    for _ in range(5):
        permit = made.take("b", (), 0)
        permit.judge("failure", 0)
        permit.release()
    assert made.take("b", (), 1) is None
    assert made.eligible_in_s({("b", None)}, 1) == pytest.approx(4)
    assert made.eligible_in_s({("a", None), ("b", None)}, 1) == 0
    probe = made.take("b", (), 5)
    assert probe.is_probe
    assert made.take("b", (), 5) is None
    probe.release()
    assert made.take("b", (), 5).is_probe, "a probe that told nothing leaves its place to the next"


def test_attempt_that_is_no_probe_when_it_ends_then_the_probe_keeps_its_place():
    made = health(1)
    early = [made.take("b", (), 0) for _ in range(6)]
    for permit in early[:5]:
        permit.judge("failure", 0)
    probe = made.take("b", (), 5)
    early[5].release()
    assert made.take("b", (), 5) is None
    probe.judge("success", 5)
    assert made.take("b", (), 5) is not None


def test_credential_when_refused_then_it_is_a_last_resort_until_it_works():
    made = health(1)
    first = made.take("b", (), 0)
    first.judge("refused", 0)
    assert made.take("b", (), 1) is None
    again = made.take_refused("b", (), 1)
    assert made.take_refused("b", {again.place}, 1) is None
    again.judge("success", 1)
    assert made.take("b", (), 1) is not None


def test_credential_when_refused_and_its_breaker_is_open_then_it_is_no_last_resort():
    made = health(1, failures=1)
    late, refused = made.take("b", (), 0), made.take("b", (), 0)
    refused.judge("refused", 0)
    late.judge("failure", 0)
    assert made.take_refused("b", (), 1) is None
    assert made.retake(("b", 0), 1) is None


def test_health_when_the_configuration_changed_then_it_belongs_to_the_key_at_its_address():
    def entry(name: str, *keys: str, url: str = "http://a/v1", weight: int = 1) -> UpstreamEntry:
        return UpstreamEntry(name=name, base_url=url, credentials=[{"api_key": key, "weight": weight} for key in keys])

    settings = Settings(failures=1)
    old = Health((entry("a", "k0", "k1"), entry("b", "k2")), settings, lambda: 0.5)
    running = old.take("a", (), 0)
    assert running.place == ("a", 0)
    failed = old.take("a", [("a", 0)], 0)
    failed.judge("failure", 0)
    failed.release()
    old.take("b", (), 0).judge("refused", 0)

    kept = Health((entry("a", "k0", "k1", weight=3), entry("b", "k3")), settings, lambda: 0.5, old)
    state = {(one["upstream"], one["credential"]): one for one in kept.describe(1)}
    assert [state["a", n]["state"] for n in (0, 1)] == ["closed", "open"]
    assert state["a", 0]["inFlight"] == 1
    assert state["a", 0]["weight"] == 3
    assert state["b", 0]["state"] == "closed", "another key begins anew"
    running.release()
    assert next(iter(kept.describe(1)))["inFlight"] == 0, "what began before ends here too"

    moved = Health((entry("a", "k1", "k0"), entry("b", "k2", url="http://b/v1")), settings, lambda: 0.5, old)
    assert [one["state"] for one in moved.describe(1)] == ["open", "closed", "closed"]


def test_health_when_an_attempt_from_before_fails_late_then_there_is_still_one_probe():
    health = Health((UpstreamEntry(name="a", base_url="http://a/v1"),), Settings(failures=1), lambda: 0.5)
    late, first = health.take("a", (), 0), health.take("a", (), 0)
    first.judge("failure", 0)
    first.release()
    probe = health.take("a", (), 10)
    assert probe.is_probe
    late.judge("failure", 11)
    late.release()
    assert health.take("a", (), 1000) is None
    probe.judge("success", 1001)
    assert health.take("a", (), 1001) is not None
