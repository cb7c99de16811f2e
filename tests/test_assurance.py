"""What judges answers, where whoever is asked next does not answer."""

import asyncio
import time

from proxy.assurance import Assurance
from proxy.config.project import FeatureSettings
from proxy.config.routing import Routing
from proxy.config.schema import UpstreamEntry
from proxy.exchange import Attempt, Candidate
from proxy.further import Further
from proxy.routing.dispatch import Dispatcher
from proxy.routing.health import Health
from tests.test_outgoing import Scene, replica

WEAK, STRONG = Candidate("a", "gpt-5-nano", layer="L0"), Candidate("b", "gpt-5", layer="L1")
__all__ = ["replica"]


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

    further = Further(scene.x, scene, scene.outgoing, lambda: None, may_quote)
    assurance = Assurance(further, FeatureSettings(enable_auto_escalate=True), is_reviewed=False)
    async with asyncio.timeout(2):
        assert await assurance.ask_above("L0") == "deadline"
    assert (scene.x.attempts[1].why, scene.x.attempts[1].failure) == ("escalate", "late")
    assert all(row["inFlight"] == 0 for row in scene.dispatcher._health.describe(time.monotonic()))
