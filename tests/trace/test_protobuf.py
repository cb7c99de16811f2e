"""Messages written by hand, read by Google's own implementation, and the other way round."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from proxy.trace import protobuf

values = st.one_of(
    st.text(max_size=300),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=20), max_size=5),
)


def plain(pair: KeyValue) -> object:
    kind = pair.value.WhichOneof("value")
    if kind == "array_value":
        return [one.string_value for one in pair.value.array_value.values]
    return getattr(pair.value, kind)


@given(st.lists(st.tuples(st.text(max_size=200), st.none() | values), max_size=8))
def test_attributes_when_written_then_they_read_the_same(pairs) -> None:
    read = Resource.FromString(protobuf.attributes(1, pairs))
    expected = [(key, value) for key, value in pairs if value is not None]
    assert [(pair.key, plain(pair)) for pair in read.attributes] == expected
    assert [type(plain(pair)) for pair in read.attributes] == [type(value) for _, value in expected]


def test_text_when_it_has_the_shape_of_a_key_or_half_a_character_then_it_is_covered_or_replaced() -> None:
    read = Resource.FromString(protobuf.attributes(1, [("a", "model sk-0123456789abcdefghij"), ("b", "x\ud800")]))
    assert [plain(pair) for pair in read.attributes] == ["model " + "*" * 23, "x?"]


@given(st.integers(0, 2**63 - 1), st.text(max_size=40))
def test_fields_when_a_message_is_read_then_all_are_there(rejected: int, said: str) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = rejected, said
    ((number, inner),) = protobuf.fields(answer.SerializeToString())
    assert number == 1
    assert isinstance(inner, bytes)
    assert dict(protobuf.fields(inner)) == {n: v for n, v in ((1, rejected), (2, said.encode())) if v}


@given(st.binary(max_size=60))
def test_fields_when_bytes_are_no_message_then_value_error_and_nothing_else(data: bytes) -> None:
    with suppress(ValueError):
        list(protobuf.fields(data))


def test_fields_when_widths_are_fixed_then_their_bytes() -> None:
    body = protobuf.fixed64(1, 7) + protobuf.fixed32(2, 8) + protobuf.number(3, -1)
    assert list(protobuf.fields(body)) == [(1, b"\7" + b"\0" * 7), (2, b"\x08\0\0\0"), (3, 2**64 - 1)]
