import pytest

from proxy.errors import PolicyUnavailable
from proxy.policy.guarded_output import GuardedOutput
from tests.fakes.scanner import MASK, SECRET, FakeChannel, FakeScanner


class Faulty(FakeChannel):
    def pieces(self, delta, final=False):
        if "fault" in delta:
            raise RuntimeError(delta)
        return super().pieces(delta, final)


class FaultyScanner(FakeScanner):
    def channel(self, kind="text"):
        return Faulty(self.edits)

    def is_clean(self, texts):
        if "fault" in texts:
            raise RuntimeError("fault")
        return super().is_clean(texts)

    def whole(self, text, kind="text"):
        if "fault" in text:
            raise RuntimeError(text)
        return super().whole(text, kind)


def refuse(_error):
    raise PolicyUnavailable("no")


def test_scanner_when_nothing_fails_then_it_says_what_the_inner_one_says():
    inner, faults = FaultyScanner(unscannable="deny"), []
    scanner = GuardedOutput(inner, faults.append)
    assert (scanner.edits, scanner.unscannable) == (True, "deny")
    channel = scanner.channel()
    pieces = [piece.text for delta in ("a KEY-", "12345678 b", "BO", "OM") for piece in channel.pieces(delta)]
    assert "".join(pieces) == f"a {MASK} b"
    assert (channel.blocked.rule_id, len(channel.findings)) == ("boom", 2)
    assert scanner.whole(SECRET).text == MASK
    assert (scanner.is_clean(["clean"]), scanner.is_clean([SECRET]), scanner.is_clean(["fault"])) == (
        True,
        False,
        False,
    )
    scanner.found("p", channel.findings)
    scanner.missed("p", "media")
    scanner.saw(3)
    assert (len(inner.seen), inner.unread, inner.characters, faults) == (2, [("p", "media")], 3, [])


def test_scanner_when_it_fails_and_nothing_unscanned_may_pass_then_nothing_does():
    scanner = GuardedOutput(FaultyScanner(), refuse)
    with pytest.raises(PolicyUnavailable):
        scanner.whole("fault")
    with pytest.raises(PolicyUnavailable):
        scanner.channel().pieces("fault")
    with pytest.raises(PolicyUnavailable):
        scanner.channel().take("fault")


def test_scanner_when_it_fails_and_that_is_only_counted_then_the_text_goes_on():
    faults = []
    scanner = GuardedOutput(FaultyScanner(), faults.append)
    assert scanner.whole("fault").text == "fault"
    channel = scanner.channel()
    deltas = ["a KEY-1", "fault", SECRET]
    out = "".join(piece.text for delta in deltas for piece in channel.pieces(delta))
    assert out == "".join(deltas)
    assert (list(channel.pieces("", final=True)), len(faults)) == ([], 2)
    channel = scanner.channel()
    assert [channel.take(delta) for delta in ("a KEY-1", "fault", "KEY-")] == [2, 10, 4]


def test_channel_when_told_shortly_then_what_is_held_is_known():
    channel = GuardedOutput(FaultyScanner(), refuse).channel()
    assert [channel.take("a KEY-1"), channel.take("2 b")] == [2, 8]
    assert [piece.text for piece in channel.take(SECRET)] == [MASK]
