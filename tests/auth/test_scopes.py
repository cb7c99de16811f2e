from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.scopes import exceeding, scope

END = datetime(2026, 12, 1, tzinfo=UTC)
OPERATIONS = ["chat", "chat.completions.create", "chat.completions.list", "embeddings", "embeddings.create", "unheard"]
KINDS = {"chat.completions.create": "chat", "chat.completions.list": "chat", "embeddings.create": "embeddings"}


@pytest.mark.parametrize(
    ("new", "own", "beyond"),
    [
        ({}, {}, ()),
        ({"models": ["a"]}, {}, ()),
        ({"models": []}, {"models": ["a"]}, ()),
        ({"models": ["a"]}, {"models": ["a", "b"]}, ()),
        ({}, {"models": ["a"]}, ("scopes.models",)),
        ({"models": ["a", "c"]}, {"models": ["a", "b"]}, ("scopes.models",)),
        ({"models": ["a"]}, {"models": []}, ("scopes.models",)),
        ({"operations": ["chat.completions.create"]}, {"operations": ["chat"]}, ()),
        ({"operations": ["chat"]}, {"operations": ["chat.completions.create"]}, ("scopes.operations",)),
        ({"surfaces": ["data"]}, {"surfaces": ["api"]}, ("scopes.surfaces",)),
        (
            {},
            {"models": [], "operations": [], "surfaces": []},
            ("scopes.models", "scopes.operations", "scopes.surfaces"),
        ),
    ],
)
def test_key_hands_on_what_lies_within_its_own_scopes(new, own, beyond) -> None:
    assert exceeding(new, None, own, None) == beyond


@pytest.mark.parametrize(
    ("end", "own_end", "fits"),
    [
        (None, None, True),
        (END, None, True),
        (END, END, True),
        (END - timedelta(1), END, True),
        (END + timedelta(1), END, False),
        (None, END, False),
    ],
)
def test_key_hands_on_no_more_time_than_it_has(end, own_end, fits) -> None:
    assert exceeding({}, end, {}, own_end) == (() if fits else ("expiresAt",))


scopes = st.dictionaries(
    st.sampled_from(["models", "operations"]), st.lists(st.sampled_from([*OPERATIONS, "a", "b"]), max_size=3)
)


def allows(limits, model: str, operation: str) -> bool:
    """What a request meets (`auth.admission`)."""
    models, operations = scope(limits.get("models")), scope(limits.get("operations"))
    return (models is None or model in models) and (
        operations is None or bool(operations & {operation, KINDS.get(operation, "other")})
    )


@given(scopes, scopes)
def test_whatever_a_key_that_fits_may_do_its_maker_may_do(new, own) -> None:
    if exceeding(new, None, own, None):
        return
    for model in ("a", "b", "c"):
        for operation in (*KINDS, "other.thing"):
            assert not allows(new, model, operation) or allows(own, model, operation)
