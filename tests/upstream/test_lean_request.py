import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.lean_request import request_head, slices
from tests.upstream.peer import get


async def test_slices_when_joined_are_the_body():
    data = bytes(range(256)) * 10
    assert [piece async for piece in slices(data, 1000)] == [data[:1000], data[1000:2000], data[2000:]]
    assert [piece async for piece in slices(b"", 10)] == []


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=20)), max_size=8))
def test_head_when_any_field_is_given_has_exactly_its_lines_or_is_refused(fields):
    request = get("unused", headers=fields)
    dirty = any(byte in name + value for name, value in fields for byte in b"\r\n\0")
    if dirty:
        with pytest.raises(ValueError, match="line end"):
            request_head(request, "/", "host")
    else:
        head = request_head(request, "/", "host")
        assert head.split(b"\r\n") == [
            b"GET / HTTP/1.1",
            b"Host: host",
            *[name + b": " + value for name, value in fields],
            b"",
            b"",
        ]
