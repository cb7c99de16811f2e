from hypothesis import given
from hypothesis import strategies as st

from proxy.exchange import Capture, first_values


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
