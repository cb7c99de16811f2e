import pytest

from proxy.openai.sse_frame import reframed


@pytest.mark.parametrize(
    ("event", "data", "expected"),
    [
        (b"data: a\n\n", b"b", b"data: b\n\n"),
        (b"data:a\r\n\r\n", b"b", b"data:b\r\n\r\n"),
        (b"data: a\r\r", b"b", b"data: b\r\r"),
        (b"data: a\r\n\r", b"b", b"data: b\r\n\r"),
        (b"\xef\xbb\xbfdata: a\n\n", b"b\nc", b"\xef\xbb\xbfdata: b\ndata: c\n\n"),
        (b": c\nevent: e\ndata: a\nid: 7\nretry: 3\n\n", b"b", b": c\nevent: e\ndata: b\nid: 7\nretry: 3\n\n"),
        (b"data: {\ndata\ndata: }\n\n", b"[\n1\n]", b"data: [\ndata: 1\ndata: ]\n\n"),
        (b"data: {\n: c\ndata: }\n\n", b"[]", b"data: []\n: c\n\n"),
        (b"data: a\n\n", b"b\nc", b"data: b\ndata: c\n\n"),
        (b"data: a", b"b", b"data: b"),
    ],
)
def test_event_when_its_data_changes_then_its_framing_stays(event, data, expected):
    assert reframed(event, data) == expected
