"""A value and what follows it, where both are URL-encoded."""

import pytest

from proxy.policy import url_encoded


@pytest.mark.parametrize(
    ("run", "value"),
    [
        ("aB1+c/d=", "aB1+c/d="),
        ("100%sure+so", "100%sure+so"),
        ("aB1%2Bc%2Fd%3D", "aB1%2Bc%2Fd%3D"),
        ("aB1%22%2C%20next", "aB1"),
        ("aB1%0A+++x", "aB1"),
        ("%22%27aB1%27", "aB1"),
        ("+%5BaB1%5D", "aB1"),
        ("%24aB1", "%24aB1"),
        ("%20", ""),
        ("%E2%80%9CaB1%C3%BC", "aB1"),
        ("aB%e91x%C3y%A1z", "aB%e91x%C3y%A1z"),
        ("aB1+c/D2eF3gH4iJ5kL6mN7%3D", "aB1+c/D2eF3gH4iJ5kL6mN7%3D"),
        ("+aB1+c/D2eF3gH4iJ5kL6mN%3d%3d%22+x", "aB1+c/D2eF3gH4iJ5kL6mN%3d%3d"),
        ("aB1+c%2FD2eF3gH4iJ5kL6mN7%3D", "aB1+c%2FD2eF3gH4iJ5kL6mN7%3D"),
        ("aB1+c/D2eF3gH4iJ5kL6mN78%3D", "aB1"),
    ],
)
def test_value_is_a_run_up_to_its_end(run: str, value: str) -> None:
    assert url_encoded.value(run) == value


def test_last_part_follows_the_last_end() -> None:
    assert url_encoded.last_part("a%20b%2C+c") == "c"
    assert url_encoded.last_part("a+c") == "a+c"
