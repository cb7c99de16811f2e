"""Families of models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.openai.model_names import base_name, of_family

TABLE = {"gpt-4": 1, "gpt-4o": 2, "gpt-4o-mini": 3}


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("gpt-4o", "gpt-4o"),
        ("GPT-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o-mini-2024-07-18"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("gpt-oss:20b", "gpt-oss"),
        ("", ""),
    ],
)
def test_base_name_when_there_are_tags_then_they_are_gone(model, base):
    assert base_name(model) == base


@pytest.mark.parametrize(
    ("model", "fact"),
    [
        ("gpt-4", 1),
        ("gpt-4-0613", 1),
        ("gpt-4o-2024-08-06", 2),
        ("gpt-4o-mini-2024-07-18", 3),
        ("ft:gpt-4o-mini:org::id", 3),
        ("gpt-4.1", None),
        ("gpt-40", None),
        ("gpt", None),
        ("", None),
        (None, None),
    ],
)
def test_of_family_when_segments_follow_then_the_closest_family_counts(model, fact):
    assert of_family(model, TABLE) == fact


@settings(deadline=None)
@given(st.text(max_size=600))
def test_of_family_when_a_name_is_anything_then_it_ends(model):
    assert of_family(model, {}) is None
