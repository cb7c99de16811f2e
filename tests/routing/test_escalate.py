"""The loop of escalation against a scripted way up, and who is asked next."""

import pytest

from proxy.exchange import Attempt
from proxy.nouns.candidates import Candidate, Escalated, Judgement, Rejection
from proxy.routing.collect import Collected, CollectedReply
from proxy.routing.escalate import above, escalate, none_above
from tests.relay.peers import Reply

L0, L1, L2 = (Candidate("u", f"m{n}", layer) for n, layer in enumerate(("L0", "L1", "L2")))


def answer(candidate: Candidate, weakness: str | None, index: int = 0) -> Collected:
    reply = CollectedReply(Reply([]), [b"x"], None, is_whole=True)
    return Collected(Attempt(index, candidate, 0.0), reply, weakness=weakness)


class Up:
    """Each step is an answer of the layer above, or the word for why there is none."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.asked = []

    async def ask_above(self, layer):
        self.asked.append(layer)
        step = self.steps[0]
        return self.steps.pop(0) if isinstance(step, str) else Reply([])

    async def read_and_check(self, _reply):
        return self.steps.pop(0)


async def climb(*answers, most=2):
    first, *steps = answers
    judgement, up = Judgement(), Up(*steps)
    best = await escalate(first, up, judgement, most)
    return best, judgement, up


async def test_answer_when_a_layer_above_is_good_then_it_is_taken_and_the_first_let_go():
    first, second = answer(L0, "empty"), answer(L1, None)
    best, judgement, up = await climb(first, second)
    assert (best, judgement.because, up.asked) == (second, None, ["L0"])
    assert judgement.escalated == [Escalated("L0", "L1", "empty")]
    assert (first.attempt.failure, second.attempt.failure) == ("empty", None)
    assert await first.reply.read() == b""


@pytest.mark.parametrize("why", ["no_layer_above", "deadline", "max_cost", "quota", "no_answer"])
async def test_answer_when_nobody_above_can_be_asked_then_it_is_the_best_and_says_why(why):
    first = answer(L0, "cut")
    best, judgement, _ = await climb(first, why)
    assert (best, judgement.because, judgement.escalated, first.attempt.failure) == (first, why, [], None)
    assert await first.reply.read() == b"x"


async def test_answers_when_all_are_weak_then_the_most_useful_one_and_of_equals_the_highest():
    answers = [answer(L0, "cut"), answer(L1, "cut"), answer(L2, "refused")]
    best, judgement, up = await climb(*answers)
    assert (best, judgement.because, up.asked) == (answers[1], "max_escalations", ["L0", "L1"])
    assert [one.attempt.failure for one in answers] == ["cut", None, "refused"]


async def test_answer_when_the_one_above_cannot_be_checked_then_it_is_taken():
    unchecked = answer(L1, None)
    unchecked.unchecked = "too_large"
    best, _, _ = await climb(answer(L0, "refused"), unchecked)
    assert best is unchecked


async def test_escalations_when_none_is_allowed_then_nobody_is_asked():
    best, judgement, up = await climb(answer(L0, "empty"), most=0)
    assert (best.weakness, judgement.because, up.asked) == ("empty", "max_escalations", [])


def test_above_when_asked_then_the_next_layer_first_and_nobody_twice():
    other = Candidate("v", "m1", "L1")
    plan = (L1, other, L2, L0)
    assert above(plan, "L0", ()) == [L1, other, L2]
    assert above(plan, "L0", (Attempt(0, L1, 0.0), Attempt(1, L0, 0.0))) == [other, L2]
    assert above((L2, L0, L1), "L0", ()) == [L1, L2]
    assert above(plan, "L2", ()) == []


@pytest.mark.parametrize(
    ("why", "layer", "expected"),
    [
        ("too_expensive", "L1", "max_cost"),
        ("beyond_budget", "L1", "quota"),
        ("above_max_layer", "L1", "max_layer"),
        ("too_expensive", "L0", "no_layer_above"),
        ("lacks_tools", "L1", "no_layer_above"),
    ],
)
def test_none_above_when_something_was_passed_over_then_it_says_so(why, layer, expected):
    assert none_above((Rejection("u", "m", layer, why),), "L0") == expected
