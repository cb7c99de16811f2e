"""Every string of a document is found, has a name, and can be replaced without touching anything else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.places import OfKey, changed, gather, lead, located, media, name

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)
IMAGE = "data:image/png;base64," + "iVBORw0K" * 16


def at(document: Any, place: Any) -> Any:
    for step in place:
        document = document[step]
    return document


@given(JSON)
def test_located_when_followed_then_the_text_is_there_and_gather_has_it(document):
    gathered = "\0".join(gather(document).texts)
    for place, called, text in located(document):
        if place and isinstance(place[-1], OfKey):
            assert text in at(document, place[:-1])
        else:
            assert at(document, place) == text
        assert f"{lead(called)}{text}" in gathered


@given(JSON, st.randoms(use_true_random=False))
def test_changed_when_some_are_replaced_then_only_those_differ(document, random):
    before = [(place, text) for place, _, text in located(document) if not (place and isinstance(place[-1], OfKey))]
    changes = {place: f"<{text}>" for place, text in before if random.random() < 0.5}
    after = changed(document, changes)
    values = [(place, text) for place, _, text in located(after) if not (place and isinstance(place[-1], OfKey))]
    assert values == [(place, changes.get(place, text)) for place, text in before]
    assert [text for place, _, text in located(document) if (place, text) in before] == [text for _, text in before]


def test_changed_when_keys_get_one_mask_then_none_is_lost():
    document = {"a": {"s1": 1, "s2": {"x": "y"}, "k": 3}}
    masks = {("a", OfKey("s1")): "k", ("a", OfKey("s2")): "k", ("a", "s2", "x"): "z"}
    assert changed(document, masks) == {"a": {"k2": 1, "k3": {"x": "z"}, "k": 3}}
    assert document == {"a": {"s1": 1, "s2": {"x": "y"}, "k": 3}}


def test_changed_when_the_document_is_one_text_then_it_is_replaced():
    assert changed("a", {(): "b"}) == "b"


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ((), ""),
        (("messages", 2, "content"), "messages[2].content"),
        (("input",), "input"),
        ((0, "a"), "[0].a"),
        (("metadata", "two words"), "metadata.*"),
        (("x" * 65, "b"), "*.b"),
        (("metadata", OfKey("password")), "metadata"),
    ],
    ids=["document", "message", "member", "list", "odd key", "long key", "the key itself"],
)
def test_name_of_a_place(place, written):
    assert name(place) == written


def test_media_when_they_are_in_a_document_then_they_are_named_and_no_text():
    document = {
        "image_url": {"url": IMAGE},
        "text": "data:text/plain;base64,AAAA",
        "other": IMAGE,
        "list": [IMAGE, "data:,plain"],
    }
    assert [text for _, _, text in located(document)] == [
        "data:text/plain;base64,AAAA", "other", "list", "data:,plain",
    ]  # fmt: skip
    assert [name(place) for place in media(document)] == ["image_url.url", "other", "list[0]"]
    gathered = gather(document)
    assert gathered.has_media
    assert not any(IMAGE in text for text in gathered.texts)


def test_gather_when_a_text_is_json_with_escapes_then_it_is_named_as_such():
    nested = gather({"arguments": '{"a":"\\u0041"}', "b": '["plain"]', "c": "[\\n"}).nested
    assert sorted(nested) == ["[\\n", '{"a":"\\u0041"}']
