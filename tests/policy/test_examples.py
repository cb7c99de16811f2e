"""Examples are expanded the same way each time."""

from proxy.policy.examples import expand


def test_expand_is_the_same_for_the_same_seed() -> None:
    assert expand("x{A30}{crc}", "seed") == expand("x{A30}{crc}", "seed")
    assert len(expand("x{A30}{crc}", "seed")) == 37
