"""Every string of a document is found, has a name, and can be replaced without touching anything else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.places import changed, keys, located, name, texts

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def at(document: Any, place: Any) -> Any:
    for step in place:
        document = document[step]
    return document


@given(JSON)
def test_located_when_joined_with_keys_then_it_is_what_texts_finds(document):
    values, names = [text for _, text in located(document)], [key for _, key in keys(document)]
    assert sorted(values + names) == sorted(texts(document))


@given(JSON)
def test_located_when_followed_then_the_text_is_there(document):
    for place, text in located(document):
        assert at(document, place) == text


@given(JSON, st.randoms(use_true_random=False))
def test_changed_when_some_are_replaced_then_only_those_differ(document, random):
    before = list(located(document))
    changes = {place: f"<{text}>" for place, text in before if random.random() < 0.5}
    after = changed(document, changes)
    assert list(located(after)) == [(place, changes.get(place, text)) for place, text in before]
    assert list(located(document)) == before
    assert list(keys(after)) == list(keys(document))


@pytest.mark.parametrize(
    ("place", "written"),
    [((), ""), (("messages", 2, "content"), "messages[2].content"), (("input",), "input"), ((0, "a"), "[0].a")],
    ids=["document", "message", "member", "list"],
)
def test_name_of_a_place(place, written):
    assert name(place) == written


def test_media_are_no_text():
    document = {"image_url": {"url": "data:image/png;base64,AAAA"}, "text": "data:text/plain;base64,AAAA"}
    assert [text for _, text in located(document)] == ["data:text/plain;base64,AAAA"]
