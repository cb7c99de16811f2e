import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli.trace_text import WIDTH, heading, outline, row

TRACE = {
    "id": "01a2074a-66d2-7ad1-8be8-ea11ba481b87",
    "createdAt": "2026-11-23T07:24:06.226000Z",
    "outcome": "upstream_failed",
    "model": "gpt-4.1-mini-2025-04-14",
    "inputTokens": 1234,
    "outputTokens": 56_789,
    "totalCost": 0.00109,
    "totalDurationMs": 1202.4,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def test_row_of_a_trace_fits_the_page_and_lines_up_with_the_heading():
    line = row(TRACE)
    cells = line.split()
    assert cells[1:] == [TRACE["id"], "upstream_failed", "1234/56k", "0.001090", "1.2s", "gpt-4.1-min~"]
    assert len(line) <= WIDTH
    for name, cell in (("TRACE", TRACE["id"]), ("OUTCOME", "upstream_failed"), ("MODEL", "gpt-4.1")):
        assert heading().index(name) == line.index(cell)


def test_row_in_a_wide_terminal_shows_the_whole_model():
    assert row(TRACE, 140).endswith(" gpt-4.1-mini-2025-04-14")


def test_row_of_an_empty_trace_shows_dashes():
    assert row({}).split() == ["-", "-", "-", "-/-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("totalDurationMs", 3, "3ms"),
        ("totalDurationMs", 99_999, "100.0s"),
        ("totalDurationMs", 3_600_000, "3600s"),
        ("inputTokens", 9_999, "9999/56k"),
        ("inputTokens", 12_345_678, "12M/56k"),
        ("totalCost", 0, "0.000000"),
        ("totalCost", 123.456, "123.4560"),
        ("totalCost", 1_234_567.8, "1234567"),
    ],
)
def test_row_of_large_and_small_figures_stays_in_its_columns(field, value, expected):
    assert expected in row({**TRACE, field: value}).split()


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(TRACE, JSON)), st.integers(80, 200))
def test_row_of_anything_is_one_printable_line_within_its_width(trace, width):
    line = row(trace, width)
    assert line.isprintable()
    assert len(line) <= max(width, WIDTH)


def test_outline_of_nested_documents_is_indented():
    calls = [{"cost": 2.175e-05, "reasons": ["stop"]}]
    document = {"id": "x", "stream": True, "error": None, "calls": calls, "tools": []}
    assert list(outline(document)) == [
        "id: x",
        "stream: yes",
        "error: -",
        "calls:",
        "  [0]:",
        "    cost: 0.00002175",
        "    reasons:",
        "      [0]: stop",
        "tools: -",
    ]


@given(JSON)
def test_outline_of_anything_has_only_printable_lines(document):
    assert all(line.isprintable() for line in outline(document))
