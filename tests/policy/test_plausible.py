"""Values that machines make, and others."""

from proxy.policy.plausible import machine_made


def test_machine_made_tells_keys_from_words() -> None:
    assert machine_made("a8Kd03mZq71Lx")
    assert not machine_made("authentication-is-required")
