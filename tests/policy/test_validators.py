"""Check digits, each with a value that holds and one that does not."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.policy.examples import expand
from proxy.policy.validators import VALIDATORS, card, may_be_cards


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("card", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("card", "3782-822463-10005", "5430 5431 5432 5433"),
        ("card", "2200 7007 1234 5676", "2205 7007 1234 5671"),
        ("luhn", "6304-0000-0000-0000", "0000 0000 0000 0000"),
        ("card", "4111%201111%201111%201111", "9111111111111111"),
        ("card", "4111--1111 - 1111-1111", "5430--5431-5432-5433"),
        ("card", "6221261111117766", "4" * 40),
        ("not_article", "4222222222222", "4006381333931"),
        ("card", "5018201700009", "5019201700007"),
        ("card", "6762123456789010", "6765123456789017"),
        ("iban", "DE89370400440532013000", "DE88370400440532013000"),
        ("iban", "GB29 NWBK 6016 1331 9268 19", "XX29 NWBK 6016 1331 9268 19"),
        ("iban", "MT84MALT011000012345MTLCAST001S", "DE8937040044053201300é"),
        ("iban", "NO9386011117947", "NOXX86011117947"),
        ("ssn", "536-22-8726", "666-22-8726"),
        ("ssn", "536%2022%208726", "078-05-1120"),
        ("phone", "+49 30 901820", "555-555-0123"),
        ("phone", "415-867-5309", "111-111-1111"),
        ("phone", "%2B49%2030%209018200", "%2B49%2030"),
        ("phone", "٠١٢٣٤٥٦٧٨٩", "é"),
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


@settings(deadline=None)
@given(st.sampled_from(sorted(VALIDATORS)), st.text(alphabet="0149aZ -%2/=.@é٣DEeyJ", max_size=40))
@example("card", "4111--1111 - 1111-1111")
@example("iban", "DE893704004405320130é0")
def test_validator_of_anything_never_raises(name: str, secret: str) -> None:
    VALIDATORS[name](secret)


@pytest.mark.parametrize("size", [15, 16, 17])
def test_sift_of_cards_drops_none_that_the_validator_accepts(size: int) -> None:
    chance = random.Random(size)
    marks = ["", "", " ", "-", "%20"]
    texts = ["".join(chance.choice("0123456789") + chance.choice(marks) for _ in range(size)) for _ in range(2000)]
    texts += [f"400000000000123{check}" for check in range(10)]
    kept = may_be_cards([text.encode() for text in texts])
    assert all(may for may, text in zip(kept, texts, strict=True) if card(text))
    plain = [may for may, text in zip(kept, texts, strict=True) if len(text.replace(" ", "").replace("-", "")) == 16]
    assert may_be_cards([]) == [] and sum(kept[-10:]) == 1 and sum(plain) < max(len(plain), 1)
