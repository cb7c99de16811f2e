from proxy.openai.request import parse_empty
from proxy.routing.plan import plan_route


def test_plan_when_one_provider_is_configured_then_it_is_the_only_candidate():
    plan = plan_route(parse_empty(), "openai")
    assert [(c.upstream, c.model) for c in plan.candidates] == [("openai", None)]
    assert plan.reason == "only_upstream"
