"""Check digits, each with a value that holds and one that does not."""

import pytest

from proxy.policy.examples import expand
from proxy.policy.validators import VALIDATORS


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("card", "3782-822463-10005", "5430 5431 5432 5433"),
        ("card", "2200 7007 1234 5676", "2205 7007 1234 5671"),
        ("luhn", "6304-0000-0000-0000", "0000 0000 0000 0000"),
        ("card", "4111%201111%201111%201111", "9111111111111111"),
        ("iban", "DE89370400440532013000", "DE88370400440532013000"),
        ("iban", "GB29 NWBK 6016 1331 9268 19", "XX29 NWBK 6016 1331 9268 19"),
        ("ssn", "536-22-8726", "666-22-8726"),
        ("ssn", "536%2022%208726", "078-05-1120"),
        ("phone", "+49 30 901820", "555-555-0123"),
        ("phone", "415-867-5309", "111-111-1111"),
        ("bech32", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T5"),
        ("bech32", "a12uel5l", "1nothing"),
        ("bech32", "a12uel5l", "a1bio"),
        (
            "base58check",
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTK",
        ),
        ("base58check", "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ", "0"),
        ("base58check", "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ", "z" * 60),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.e30.x", "eyJhIjoxfQ.e30.x"),
        ("user_and_password", "ZGVwbG95OnM3S2sycTlYd1A=", "ZGVwbG95"),
        ("user_and_password", "ZGVwbG95OnM3S2sycTlYd1A%3D%22", "a"),
        ("user_and_password", "ZGVwbG95OnM3S2sycTlYd1A%3D", "%"),
        ("snowflake", "MTIzOTg3NDU2MDEyMzk4NzQ1.x", "MTIz.x"),
        ("crc32_base62", expand("ghp_{A30}{crc}", "a"), expand("ghp_{A36}", "a")),
        ("crc32_base62", expand("npm_{A30}{crc}", "b"), "npm_short"),
    ],
)
def test_validator_tells_good_from_bad(name: str, good: str, bad: str) -> None:
    assert VALIDATORS[name](good)
    assert not VALIDATORS[name](bad)
