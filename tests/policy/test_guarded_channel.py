import pytest

from proxy.errors import PolicyUnavailable
from proxy.policy.guarded_channel import GuardedChannel
from tests.fakes.scanner import MASK, SECRET, FakeChannel


class Faulty(FakeChannel):
    def pieces(self, delta, final=False):
        if "fault" in delta:
            raise RuntimeError(delta)
        return super().pieces(delta, final)


def channel_of(fault):
    return GuardedChannel(Faulty(True), fault)


def refuse(_error):
    raise PolicyUnavailable("no")


def test_channel_when_nothing_fails_then_it_says_what_the_inner_one_says():
    faults = []
    channel = channel_of(faults.append)
    pieces = [piece.text for delta in ("a KEY-", "12345678 b", "BO", "OM") for piece in channel.pieces(delta)]
    assert "".join(pieces) == f"a {MASK} b"
    assert (channel.blocked.rule_id, len(channel.findings), faults) == ("boom", 2, [])


def test_channel_when_it_fails_and_nothing_unscanned_may_pass_then_nothing_does():
    with pytest.raises(PolicyUnavailable):
        channel_of(refuse).pieces("fault")
    with pytest.raises(PolicyUnavailable):
        channel_of(refuse).take("fault")


def test_channel_when_it_fails_and_that_is_only_counted_then_the_text_goes_on():
    faults = []
    channel = channel_of(faults.append)
    deltas = ["a KEY-1", "fault", SECRET]
    out = "".join(piece.text for delta in deltas for piece in channel.pieces(delta))
    assert out == "".join(deltas)
    assert (list(channel.pieces("", final=True)), len(faults)) == ([], 1)
    channel = channel_of(faults.append)
    assert [channel.take(delta) for delta in ("a KEY-1", "fault", "KEY-")] == [2, 10, 4]


def test_channel_when_told_shortly_then_what_is_held_is_known():
    channel = channel_of(refuse)
    assert [channel.take("a KEY-1"), channel.take("2 b")] == [2, 8]
    assert [piece.text for piece in channel.take(SECRET)] == [MASK]
