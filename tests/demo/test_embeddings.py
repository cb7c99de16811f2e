"""Embeddings: deterministic unit vectors, the same in both encodings."""

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo import embeddings


@given(st.text(max_size=40), st.integers(1, 64))
def test_vector_when_any_text_then_length_one_and_repeatable(text: str, dimensions: int) -> None:
    numbers = embeddings.vector(text, dimensions)
    assert len(numbers) == dimensions
    assert math.isclose(math.fsum(number * number for number in numbers), 1.0, rel_tol=1e-5)
    assert numbers == embeddings.vector(text, dimensions)


def test_document_when_base64_then_the_same_numbers() -> None:
    plain = embeddings.document("m", ["a"], 8, as_base64=False)["data"][0]["embedding"]
    packed = embeddings.document("m", ["a"], 8, as_base64=True)["data"][0]["embedding"]
    assert list(struct.unpack("<8f", base64.b64decode(packed))) == plain


@pytest.mark.parametrize(
    ("value", "inputs"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], ["1 2"]),
        ([[1, 2], [3]], ["1 2", "3"]),
        ([], [""]),
        (None, ["None"]),
    ],
)
def test_read_inputs_when_any_form_then_texts(value: object, inputs: list[str]) -> None:
    assert embeddings.read_inputs(value) == inputs


def test_document_when_several_inputs_then_usage_counts_all() -> None:
    usage = embeddings.document("m", ["one two", "three", ""], 2, as_base64=False)["usage"]
    assert usage == {"prompt_tokens": 4, "total_tokens": 4}


def test_moderation_when_asked_then_a_result_per_input_and_nothing_flagged() -> None:
    document = embeddings.moderation("modr-1", "m", ["a", "b"])
    assert [result["flagged"] for result in document["results"]] == [False, False]
