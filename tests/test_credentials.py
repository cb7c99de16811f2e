"""What counts as a credential, and that covering one changes nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.credentials import (
    MIN_SECRET_BYTES,
    client_secrets,
    cover,
    cover_shapes,
    covered_text,
    resembles_credential,
    secrets_in,
)

KEY = b"sk-proj-0123456789abcdef"


@pytest.mark.parametrize(
    ("value", "secrets"),
    [
        (b"Bearer " + KEY, (KEY,)),
        (KEY, (KEY,)),
        (b"  Bearer  " + KEY + b" ", (KEY,)),
        (b"Bearer ollama", ()),
        (b"Bearer", ()),
        (b"", ()),
        (b" ", ()),
        (b"x" * MIN_SECRET_BYTES, (b"x" * MIN_SECRET_BYTES,)),
        (b"x" * (MIN_SECRET_BYTES - 1), ()),
    ],
)
def test_secrets_when_values_of_fields_then_only_what_is_no_placeholder(
    value: bytes, secrets: tuple[bytes, ...]
) -> None:
    assert secrets_in([value]) == secrets


def test_secrets_when_one_begins_with_another_then_the_longer_is_covered_first() -> None:
    secrets = secrets_in([KEY, KEY + b"-more"])
    assert cover(b"<" + KEY + b"-more>", secrets) == b"<" + b"*" * (len(KEY) + 5) + b">"


def test_client_secrets_when_sent_in_any_usual_field_then_found() -> None:
    fields = {b"authorization": b"Bearer " + KEY, b"x-api-key": KEY[::-1], b"user-agent": b"a-long-user-agent/1.0"}
    assert set(client_secrets(fields)) == {KEY, KEY[::-1]}


@given(st.binary(), st.binary())
def test_cover_when_a_secret_is_inside_then_length_and_the_rest_stay(before: bytes, after: bytes) -> None:
    covered = cover(before + KEY + after, [KEY])
    assert len(covered) == len(before + KEY + after)
    assert KEY not in covered
    assert covered.startswith(before) and covered.endswith(after)


def test_cover_when_nothing_is_inside_then_the_same_object() -> None:
    data, text = b"nothing here", "nothing here"
    assert cover(data, [KEY]) is data
    assert cover_shapes(data) is data
    assert covered_text(text, [KEY]) is text


def test_text_when_it_holds_a_secret_then_covered() -> None:
    assert covered_text(f"é{KEY.decode()}!", [KEY]) == "é" + "*" * len(KEY) + "!"


@pytest.mark.parametrize(
    "name",
    [
        "sk-proj-0123456789abcdef",
        "x/sk-ant-api03-0123456789",
        "x%2Fsk-ant-api03-0123456789",
        "gsk_0123456789abcdef0123",
        "AIzaSyA0123456789abcdef0",
        *(
            f"/v1/files/{mark}0123456789abcdefgh"
            for mark in ("ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "hf_")
        ),
        "AKIA" + "0123456789ABCDEF",
    ],
)
def test_name_when_it_looks_like_a_key_then_covered(name: str) -> None:
    assert resembles_credential(name)
    assert b"0123456789" not in cover_shapes(name.encode())


@pytest.mark.parametrize(
    "name",
    ["gpt-4o-mini", "task-0123456789abcdef0123", "sk-short", "risk-assessment-model-large", "desk_gsk", "ft:gpt-4o::a"],
)
def test_name_when_it_is_an_ordinary_one_then_left_alone(name: str) -> None:
    assert not resembles_credential(name)
    assert cover_shapes(name.encode()) == name.encode()


_BEGINNINGS = (
    "sk- sg- gsk_ xai- AIza gho_ ghs_ ghp_ github_pat_ glpat- xoxb- xoxp- hf_ AKIA xoxa- gh_ pat_ a- _ -".split()
)


@given(st.text('aZ9-_ "', max_size=3), st.sampled_from(_BEGINNINGS), st.text("ABZ09az_- .", max_size=24))
def test_record_when_anything_in_it_looks_like_a_key_then_the_quick_look_does_not_miss_it(
    before: str, beginning: str, rest: str
) -> None:
    for text in (before + beginning + rest, before + beginning + "A1" * 8 + rest):
        assert (cover_shapes(text.encode()) != text.encode()) == resembles_credential(text)
