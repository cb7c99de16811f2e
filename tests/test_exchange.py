from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Capture, Inbound, first_values
from proxy.openai.operations import match


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 60))
def test_capture_when_pieces_come_then_it_keeps_a_prefix_and_says_if_there_was_more(pieces, limit):
    capture = Capture(limit_bytes=limit)
    for piece in pieces:
        capture.add(piece)
    whole = b"".join(pieces)
    assert bytes(capture.response) == whole[:limit]
    assert capture.truncated is (len(whole) > limit)


def test_first_values_when_a_header_is_repeated_then_the_first_counts_whatever_its_case():
    headers = ((b"X-A", b"1"), (b"x-a", b"2"), (b"B", b""))
    assert first_values(headers) == {b"x-a": b"1", b"b": b""}


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=8))
def test_first_values_when_given_any_headers_then_every_name_is_found_once(headers):
    fields = first_values(headers)
    assert set(fields) == {name.lower() for name, _ in headers}
    for name, value in fields.items():
        assert value == next(v for n, v in headers if n.lower() == name)


def test_said_when_a_head_comes_again_then_its_fields_are_read_once_and_what_was_refused_is_not_kept():
    asked = []

    def read(fields, suffix):
        asked.append(fields)
        if len(asked) == 1:
            raise ValueError
        return fields[b"x"] + suffix

    inbound = Inbound(
        "GET", "/v1/models", "/v1/models", (), {b"x": b"1"}, match("GET", "/v1/models", False), None, 0, False
    )
    with pytest.raises(ValueError):
        inbound.said(read, b"2")
    assert inbound.said(read, b"2") == replace(inbound, content_length=5).said(read, b"2") == b"12"
    assert len(asked) == 2
