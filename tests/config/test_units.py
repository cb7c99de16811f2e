"""Values with their unit and range."""

from decimal import Decimal

import pytest
from pydantic import SecretStr, ValidationError

from proxy.config.units import Bytes, Count, Credential, Dollars, Port, Seconds, Section

SECRET = "zqSECRETzq"


class Sample(Section):
    """One field of each unit."""

    seconds: Seconds = 1.0
    bytes: Bytes = 1
    count: Count = 1
    port: Port = 0
    credential: Credential = None
    dollars: Dollars = Decimal(0)


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("seconds", 0.001),
        ("seconds", 86_400),
        ("bytes", 1 << 53),
        ("count", (1 << 31) - 1),
        ("port", 0),
        ("port", 65_535),
        ("dollars", Decimal("0.000000001")),
        ("dollars", Decimal(1_000_000)),
        ("credential", None),
    ],
)
def test_unit_when_a_value_is_within_its_range_then_it_stays_exact(unit, value):
    assert getattr(Sample(**{unit: value}), unit) == value


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("seconds", 0),
        ("seconds", 86_401),
        ("seconds", float("nan")),
        ("bytes", 0),
        ("bytes", (1 << 53) + 1),
        ("count", 0),
        ("count", 1 << 31),
        ("count", 1.5),
        ("port", -1),
        ("port", 65_536),
        ("dollars", -1),
        ("dollars", 1_000_001),
        ("dollars", "Infinity"),
        ("dollars", "NaN"),
    ],
)
def test_unit_when_a_value_is_out_of_range_then_it_is_refused(unit, value):
    with pytest.raises(ValidationError) as caught:
        Sample(**{unit: value})
    assert [error["loc"] for error in caught.value.errors()] == [(unit,)]


@pytest.mark.parametrize("text", ["", f"{SECRET} ", f"{SECRET}\r\nx: y", f"{SECRET}\x7f", f"é{SECRET}"], ids=ascii)
def test_credential_when_it_cannot_stand_in_a_header_then_it_is_refused_without_being_quoted(text):
    with pytest.raises(ValidationError, match="visible ASCII") as caught:
        Sample(credential=SecretStr(text))
    assert SECRET not in str(caught.value)


def test_section_when_a_key_is_unknown_or_changed_then_it_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Sample(second=1)
    with pytest.raises(ValidationError, match="frozen"):
        Sample().count = 5
