"""Faults: what is understood and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.faults import FAULTS, FLAGS, RANGES, Fault, FaultError, parse, split_model


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", Fault()),
        (" , ", Fault()),
        ("status=503", Fault(status=503)),
        ("status=503, after=2,delay_ms=50 ,cut", Fault(status=503, after=2, delay_ms=50, cut=True)),
        ("no_usage,no_done", Fault(no_usage=True, no_done=True)),
        ("hang", Fault(hang=True)),
        ("delay_ms=0", Fault(delay_ms=0)),
    ],
)
def test_parse_when_understood_then_fault(text: str, fault: Fault) -> None:
    assert parse(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "ctu",
        "cut=1",
        "status",
        "status=",
        "status=200",
        "status=600",
        "status=-1",
        "after=x",
        "after=²",
        "delay_ms=1e9",
    ],
)
def test_parse_when_not_understood_then_refused(text: str) -> None:
    with pytest.raises(FaultError):
        parse(text)


def test_faults_when_listed_then_every_one_can_be_parsed() -> None:
    assert {name.partition("=")[0] for name in FAULTS} == FLAGS | RANGES.keys()


@given(st.text(alphabet="cut,=status503 after", max_size=30))
def test_parse_when_any_text_then_fault_or_refusal(text: str) -> None:
    try:
        assert isinstance(parse(text), Fault)
    except FaultError:
        assert text.strip(" ,")


@pytest.mark.parametrize(
    ("model", "name", "fault"),
    [("demo", "demo", ""), ("demo!cut", "demo", "cut"), ("ft:a:b::c!x!y", "ft:a:b::c", "x!y"), ("!cut", "", "cut")],
)
def test_split_model_when_marked_then_fault_behind_the_mark(model: str, name: str, fault: str) -> None:
    assert split_model(model) == (name, fault)


@pytest.mark.parametrize(
    ("fault", "breaks"), [(Fault(no_done=True), False), (Fault(cut=True), True), (Fault(hang=True), True)]
)
def test_fault_when_something_happens_inside_then_breaks_stream(fault: Fault, breaks: bool) -> None:
    assert fault.breaks_stream is breaks
