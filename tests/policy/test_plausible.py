"""Values that machines make or people choose, and what else stands behind such names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy import plausible
from proxy.policy.plausible import email, key_material, key_of_aws, machine_made, mixed_case, password


@pytest.mark.parametrize(
    "value",
    [
        "a8Kd03mZq71Lx",
        "MNHGDLxZBQz0",
        "0123456789abcdef01",
        "gTAgzSkrqRlQDEGHpyjRnA==",
        "/mdkg8vNLHd6b2KSKMPw6Q==",
        "hQxTzKwRbYvLmPsDjGfN",
        "f2b.kd_s8ZllCRHQ",
        "%22a8Kd03mZq71Lx%22%2C%0A%20%20and%20so%20on",
        "a8Kd03mZq71Lx+and+so+on%0A",
    ],
)
def test_machine_made_knows_keys(value: str) -> None:
    assert machine_made(value)


@pytest.mark.parametrize(
    "value",
    [
        "short1A",
        "authentication-is-required",
        "PKCS7PrivateKeyTypes2Long",
        "hashlib.sha256",
        "v8::Isolate::GetCurrent()",
        "/etc/ssl/private/key1A2b3C.pem",
        "./cfg2",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "sha256:0a1b2c3d4e5f0a1b2c3d4e5f",
        "1:4.13+dfsg1-1+deb12u1",
        "1234567890123456",
        "os.environ['K1']",
        "ABCDEFGHIJKLMNOPQRSTUVWX",
        "v0.0.0-20241225123942-ab95a82ef75e",
        "0x0000402dUL",
        "https%3A%2F%2Fid.acme.io%2Fcb1d2e3f4",
        "string%3B+refreshToken%3F%3A+string2",
        "regelm%C3%A4%C3%9Fig%20erneuern",
        "%24TOKEN_OF_CI%0D%0Acall+b1a2.bat",
    ],
)
def test_machine_made_knows_what_is_no_key(value: str) -> None:
    assert not machine_made(value)


def test_password_wants_digits_letters_and_one_thing_more() -> None:
    assert password("Winter2024!") and password("tr0ub4dor&3") and password("t3reSVPsKKyI5WA") and password("Ab1cd2ef")
    assert password("5x-iBrZq&ssl=true") and password("Dt!0=k_w")
    assert not any(
        map(
            password,
            ["abc1", "password1", "label1=thing", "nodigits!", "${PW1}aaaa", "hunter22", "#78f51993", "a&b1=2!cdefg"],
        )
    )


def test_mixed_case_and_key_of_aws() -> None:
    assert mixed_case("aBcDeFgHiJkLm") and not mixed_case("abcdefghijklm") and not mixed_case("aBaBaBaB")
    assert key_of_aws("q8Zr3LkP0xWv7YtN2mBc5JdF9gHs1KaQ4eRu6Tio")
    assert not key_of_aws("0a1b2c3d4e5f0a1b2c3d4e5f0a1b2c3d4e5f0a1b")
    assert not key_of_aws("aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgHiJkLmN")
    assert not key_of_aws("a/B/c/D/e/F/g/H/1iJkLmNoPqRsTuVwXyZaBcDe")


def test_key_material_varies() -> None:
    assert key_material("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC")
    assert not key_material("-----BEGIN PRIVATE KEY-----\nXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX")
    sample = "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n"
    assert not key_material(sample + "sha256: 0123456789abcdefghijklmnopqrstuvwxyz")


def test_email_drops_what_is_no_person() -> None:
    assert email("jane@acme.com") and email("jane%40acme.com")
    assert not any(
        map(email, ["a@example.com", "git@host.io", "icon@2x.png", "a@x..com", "me@users.noreply.github.com"])
    )
    assert email("jane%20and%20joe@acme.com") and email("20jane@acme.com")
    assert not any(
        map(email, ["2C+%40app.route", "20git%40acme.com", "%2C%20@acme.com", "3D+git%40acme.com", "ngit@acme.com"])
    )


LETTERS = st.text(st.sampled_from("bcdgBCDGaeAE019._é"), max_size=24)


@given(text=LETTERS)
@settings(max_examples=500)
def test_counts_by_classes_are_those_of_the_patterns_that_define_them(text: str) -> None:
    words = sum(len(word) for word in plausible._WORD.findall(text) if plausible._is_word(word))
    assert plausible._changes(text) == len(plausible._CHANGE.findall(text))
    assert plausible._oddities(text) == len(plausible._ODD.findall(text))
    assert plausible._letters_of_words(text) == words
    assert plausible._has_both(text) == (any(map(str.isdigit, text)) and any(map(str.isalpha, text)))
