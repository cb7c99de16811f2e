"""Phase 4 from a body to a plan: which facts are gathered, and what a project's settings mean."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest

from proxy.config.layers import Layers
from proxy.config.layers import load as load_layers
from proxy.config.project import parse
from proxy.config.schema import Config, Limits, Prices
from proxy.errors import InvalidRequest, PermissionDenied
from proxy.exchange import Inbound, Principal, first_values
from proxy.openai.operations import match
from proxy.openai.request import parse_empty, parse_handshake, parse_json
from proxy.phases.planner import Planner
from proxy.quota import estimate
from proxy.routing.catalogue import Catalogue
from proxy.routing.health import Health
from proxy.upstream.pricing import load as load_prices

ALICE = Principal("alice", "shop", "header")
NOTHING = parse({})[0]
TABLE = load_prices(None, Prices())


class Left:
    """Quotas of which only the money left is asked."""

    def __init__(self, nanos=None):
        self.nanos = nanos

    def left_nanos(self, _principal):
        return self.nanos


def planner(left=None, layers=None, **settings) -> Planner:
    config = Config(**settings)
    catalogue = Catalogue(config.providers, layers or load_layers(None, config.providers))
    health = Health(config.providers, config.routing.breaker, lambda: 0.5)
    prices = load_prices(None, config.prices) if "prices" in settings else TABLE
    return Planner(config, catalogue=catalogue, health=health, prices=prices, quotas=Left(left))


def asked(model="auto", *headers, path="/v1/chat/completions", **more):
    document = {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
    body = json.dumps({name: value for name, value in document.items() if value is not None}).encode()
    operation = match("POST", path, False)
    inbound = Inbound("POST", path, path, headers, first_values(headers), operation, None, len(body), True)
    return inbound, parse_json(body, operation, limits=Limits(), force_stream_usage=True), ALICE


def project(**routing):
    settings, problems = parse({"routing": routing})
    assert not problems
    return settings


def names(plan):
    return [candidate.model for candidate in plan.candidates]


def test_model_at_the_one_provider_passes_as_it_is():
    plan = planner().plan(*asked("gpt-4o"))
    assert (names(plan), plan.reason, plan.is_managed) == (["gpt-4o"], "only_upstream", False)
    assert plan.candidates[0].bound is None


def test_auto_begins_at_the_default_layer_and_writes_the_model():
    plan = planner().plan(*asked())
    assert (plan.layer, plan.reason, plan.candidates[0].sent_as) == ("L0", "default_layer", "gpt-5-nano")
    assert plan.is_managed


def test_layer_in_the_header_takes_the_place_of_a_real_model():
    plan = planner().plan(*asked("gpt-4o-mini", (b"x-sidegate-layer", b"L2")))
    assert (plan.layer, names(plan)[0]) == ("L2", "gpt-5")
    assert planner().plan(*asked("gpt-5", (b"x-sidegate-layer", b"L2"))).candidates[0].sent_as is None
    without = planner().plan(*asked(None, (b"x-sidegate-layer", b"L2")))
    assert without.candidates[0].replaces_model is False


def test_key_limited_to_models_gets_a_layer_by_header_only_if_its_list_has_it():
    inbound, request, who = asked("gpt-4o-mini", (b"x-sidegate-layer", b"L2"))
    with pytest.raises(PermissionDenied) as denied:
        planner().plan(inbound, request, replace(who, models=frozenset({"gpt-4o-mini"})))
    assert denied.value.code == "model_not_allowed"
    assert planner().plan(inbound, request, replace(who, models=frozenset({"gpt-4o-mini", "L2"}))).layer == "L2"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations"])
def test_names_of_layers_mean_nothing_where_no_text_is_generated(path):
    plan = planner().plan(*asked("auto", path=path, input="x"))
    assert (names(plan), plan.is_managed) == (["auto"], False)


def test_hint_with_an_unknown_value_is_refused_for_real_models_too():
    with pytest.raises(InvalidRequest, match="X-Sidegate-Quality"):
        planner().plan(*asked("gpt-4o", (b"x-sidegate-quality", b"best")))


def test_project_decides_where_to_begin_and_where_to_end():
    plan = planner().plan(*asked(), project(defaultLayer="L1", maxLayer="L1"))
    assert (plan.layer, {candidate.layer for candidate in plan.candidates}) == ("L1", {"L0", "L1"})


def test_project_with_a_list_of_models_gets_no_other():
    only = project(allowedModels=["gpt-4o*", "gpt-5"])
    assert names(planner().plan(*asked(), only)) == ["gpt-4o-mini", "gpt-5"]
    assert names(planner().plan(*asked("gpt-4o-2024-08-06"), only)) == ["gpt-4o-2024-08-06"]
    for model in ("gpt-4.1", "GPT-4o", "xgpt-4o"):
        with pytest.raises(PermissionDenied):
            planner().plan(*asked(model), only)


def test_pattern_of_a_list_knows_only_the_star():
    only = project(allowedModels=["a[b]c", "m?"])
    assert names(planner().plan(*asked("a[b]c"), only)) == ["a[b]c"]
    for model in ("abc", "mx"):
        with pytest.raises(PermissionDenied):
            planner().plan(*asked(model), only)


def test_project_with_a_cost_per_request_lowers_the_maximum_or_refuses_with_the_figure():
    plan = planner().plan(*asked("gpt-5"), project(maxCostPerRequest=0.05))
    (candidate,) = plan.candidates
    assert candidate.is_lowered
    assert 4096 <= candidate.bound.output_tokens < 6000
    assert candidate.bound.cost_nanos <= 50_000_000
    with pytest.raises(InvalidRequest, match=r"0\.05 dollars") as caught:
        planner().plan(*asked("gpt-5", max_tokens=20_000), project(maxCostPerRequest=0.05))
    assert (caught.value.http_status, caught.value.code) == (400, "max_cost_exceeded")


def test_money_gone_leaves_only_free_models():
    layers = Layers(L0=({"model": "gpt-5-nano"},), L1=({"model": "devstral-small:free"},))
    plan = planner(0, layers).plan(*asked())
    assert (plan.reason, names(plan)) == ("budget_gone", ["devstral-small:free"])


def test_unpriced_models_are_refused_where_that_is_the_policy_and_only_where_something_is_billed():
    made = planner(prices=Prices(unknown_model="deny"))
    with pytest.raises(InvalidRequest) as caught:
        made.plan(*asked("nobody"))
    assert caught.value.code == "model_not_priced"
    assert names(made.plan(*asked("nobody", path="/v1/moderations"))) == ["nobody"]
    assert names(made.plan(*asked("gpt-4o"))) == ["gpt-4o"]


def test_several_credentials_make_even_one_provider_a_choice():
    keys = [{"api_key": "a"}, {"api_key": "b"}]
    plan = planner(upstreams=({"name": "one", "credentials": keys},)).plan(*asked("gpt-4o"))
    assert plan.is_managed


def test_what_cannot_be_sent_again_or_changed_has_one_candidate():
    upstreams = ({"name": "a", "models": {"m": "own"}}, {"name": "b", "models": {"m": "*"}})
    made = planner(layers=Layers(), upstreams=upstreams)
    path = "/v1/realtime?model=m"
    inbound = Inbound("GET", path, path, (), {}, match("GET", "/v1/realtime", True), None, None, False)
    plan = made.plan(inbound, parse_handshake(path), ALICE)
    assert ([candidate.upstream for candidate in plan.candidates], plan.is_managed) == (["b"], False)
    path = "/v1/audio/transcriptions"
    inbound = Inbound("POST", path, path, (), {}, match("POST", path, False), None, 9, True)
    plan = made.plan(inbound, parse_empty(9), ALICE)
    assert ([candidate.upstream for candidate in plan.candidates], plan.is_managed) == (["a"], False)


def test_stream_that_we_ask_for_usage_says_so_to_every_candidate():
    plan = planner().plan(*asked(stream=True))
    assert {candidate.forced_usage for candidate in plan.candidates} == {True}


def test_settings_of_a_project_are_compiled_once_per_version():
    made, settings = planner(), project(maxLayer="L1")
    made.plan(*asked(), settings)
    made.plan(*asked(), settings)
    made.plan(*asked(), project(maxLayer="L2"))
    assert len(made._rules) == 2


def test_explanation_tells_plan_estimate_and_what_is_left():
    made = planner(2_000_000_000)
    request = asked(max_tokens=100)
    shown = made.explain(*request, made.plan(*request))
    assert (shown["layer"], shown["model"], shown["reason"]) == ("L0", "gpt-5-nano", "default_layer")
    assert shown["estimate"]["maxOutputTokens"] == 100
    assert 0 < shown["estimate"]["maxCost"] < 0.001
    assert shown["quota"] == {"leftCost": 2.0, "allows": True}
    assert [one["layer"] for one in shown["candidates"]] == ["L0", "L0", "L1", "L1", "L2", "L2", "L3", "L3"]


def test_models_of_a_project_are_those_that_it_may_name():
    listed = [name for name, _ in planner().models(project(maxLayer="L1", allowedModels=["gpt-5*"]))]
    assert listed[:3] == ["auto", "L0", "L1"]
    assert set(listed[3:]) == {"gpt-5-mini", "gpt-5-nano"}


@pytest.mark.parametrize(
    ("model", "own", "reads"),
    [("auto", {}, True), ("gpt-4o", {"maxCostPerRequest": 1}, True), ("gpt-4o", {}, False)],
)
async def test_large_body_when_costs_are_compared_then_it_is_read_in_a_thread(monkeypatch, model, own, reads):
    inbound, request, who = asked(model)
    threads, read = [], estimate.json_steps.read

    def noted(*arguments):
        threads.append(threading.get_ident())
        return read(*arguments)

    monkeypatch.setattr(estimate.json_steps, "read", noted)
    dropped, turn = replace(request, document=None), asyncio.Lock()
    plan = await planner().plan_apart(inbound, dropped, who, project(**own), turn)
    assert bool(threads) is reads
    assert threading.get_ident() not in threads
    assert names(plan) == names(planner().plan(inbound, dropped, who, project(**own)))
    assert not turn.locked()
