"""What judges answers, where whoever is asked next does not answer."""

import asyncio
import time
from dataclasses import replace

import pytest

from proxy.config.project import FeatureSettings
from proxy.config.routing import Routing
from proxy.config.schema import UpstreamEntry
from proxy.exchange import Attempt, Candidate, Inbound, RoutePlan, first_values
from proxy.openai.operations import match
from proxy.openai.request import parse_empty
from proxy.phases.assurance import Assurance, promised
from proxy.phases.further_answers import FurtherAnswers
from proxy.routing.dispatch import Dispatcher
from proxy.routing.health import Health
from tests.phases.test_outgoing import Scene, replica

WEAK, STRONG = Candidate("a", "gpt-5-nano", layer="L0"), Candidate("b", "gpt-5", layer="L1")
__all__ = ["replica"]
CHAT = "/v1/chat/completions"
BOTH = FeatureSettings(enable_auto_escalate=True, enable_cross_check=True)
# features, complexity, layer, header, document, path -> checked, reviewed
PROMISES = {
    "nothing wanted": (FeatureSettings(), "high", "L0", None, {}, CHAT, (False, False)),
    "simple": (BOTH, "low", "L0", None, {}, CHAT, (True, False)),
    "complex": (BOTH, "high", "L0", None, {}, CHAT, (True, True)),
    "asked for": (BOTH, "low", "L0", b"on", {}, CHAT, (True, True)),
    "not wanted": (BOTH, "high", "L0", b"off", {}, CHAT, (True, False)),
    "escalation alone": (FeatureSettings(enable_auto_escalate=True), "high", "L0", b"on", {}, CHAT, (True, False)),
    "review alone": (FeatureSettings(enable_cross_check=True), "high", "L0", None, {}, CHAT, (False, True)),
    "kept elsewhere": (BOTH, "high", "L0", None, {"previous_response_id": "r"}, "/v1/responses", (True, False)),
    "a named model": (BOTH, "high", None, b"on", {}, CHAT, (False, False)),
    "completions": (BOTH, "high", "L0", b"on", {}, "/v1/completions", (False, False)),
}


@pytest.mark.parametrize("case", PROMISES.values(), ids=PROMISES.keys())
def test_promise_is_what_project_header_and_request_make_of_it(case):
    features, complexity, layer, asked, document, path, said = case
    headers = () if asked is None else ((b"x-sidegate-cross-check", asked),)
    inbound = Inbound("POST", path, path, headers, first_values(headers), match("POST", path, False), None, 2, True)
    plan = RoutePlan((WEAK,), "test", is_managed=True, layer=layer, complexity=complexity)
    made = promised(inbound, replace(parse_empty(), document=document), plan, features)
    assert (made["autoEscalate"], made["crossCheck"]) == said


async def test_layer_above_when_it_is_silent_then_the_deadline_ends_the_wait_and_the_answer_at_hand_is_used(replica):
    scene = Scene(replica, WEAK, STRONG)
    settings = Routing(deadline_s=0.2)
    scene.config = scene.config.model_copy(update={"routing": settings})
    entries = [UpstreamEntry(name=name, base_url="http://127.0.0.1:1/v1") for name in "ab"]
    scene.dispatcher = Dispatcher(settings, Health(entries, settings.breaker, lambda: 0.5))
    scene.send = lambda *_: asyncio.Event().wait()
    scene.x.started = time.monotonic()
    await scene.outgoing.reserve()
    scene.x.attempts.append(Attempt(0, WEAK, 0.0, sent=True, status=200))

    async def may_quote(_texts):
        return True

    further = FurtherAnswers(scene.x, scene, scene.outgoing, lambda: None, may_quote)
    assurance = Assurance(further, FeatureSettings(enable_auto_escalate=True), is_reviewed=False)
    async with asyncio.timeout(2):
        assert await assurance.ask_above("L0") == "deadline"
    assert (scene.x.attempts[1].why, scene.x.attempts[1].failure) == ("escalate", "late")
    assert all(row["inFlight"] == 0 for row in scene.dispatcher._health.describe(time.monotonic()))
