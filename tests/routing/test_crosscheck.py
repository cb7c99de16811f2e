import pytest

from proxy.exchange import Attempt
from proxy.nouns.candidates import Candidate
from proxy.routing.collect import Collected, CollectedReply
from proxy.routing.crosscheck import cross_check, others
from proxy.routing.review import Verdict
from tests.relay.peers import Reply

ACCEPT, REJECT = Verdict("accept", "fine"), Verdict("reject", "wrong")
ANSWER = Collected(Attempt(0, Candidate("u", "m", "L1"), 0.0), CollectedReply(Reply([]), [], None, is_whole=True))


class Panel:
    def __init__(self, *opinions):
        self.opinions = list(opinions)
        self.objections = []

    async def ask(self, answer, objection):
        assert answer is ANSWER
        self.objections.append(objection)
        return self.opinions.pop(0)


@pytest.mark.parametrize(
    ("opinions", "result"),
    [
        ([ACCEPT], ("agreed", None)),
        ([REJECT, ACCEPT], ("arbitrated", None)),
        ([REJECT, REJECT], ("disputed", None)),
        ([REJECT, "no_other_model"], ("disputed", None)),
        ([REJECT, "late"], ("disputed", None)),
        (["late"], ("unchecked", "late")),
        (["no_other_model"], ("unchecked", "no_other_model")),
    ],
)
async def test_answer_when_reviewed_then_what_became_of_it_with_no_more_opinions_than_needed(opinions, result):
    panel = Panel(*opinions)
    assert await cross_check(ANSWER, panel) == result
    assert panel.opinions == []
    assert panel.objections == [None, REJECT][: len(opinions)]


def test_others_when_asked_then_the_own_layer_first_then_above_then_below():
    a, b, up, top, low = (
        Candidate("u", name, layer)
        for name, layer in (("a", "L1"), ("b", "L1"), ("up", "L2"), ("top", "L3"), ("low", "L0"))
    )
    assert others((low, top, a, up, b), "L1", {"a"}) == [b, up, top, low]
    assert others((a,), "L1", {"a"}) == []
