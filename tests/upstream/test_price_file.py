"""A file of prices: every mistake is told, and nothing that could have no effect is accepted."""

import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.schema import Prices
from proxy.exchange import Usage
from proxy.upstream import price_file
from proxy.upstream.price_file import PriceTableError
from proxy.upstream.pricing import PriceTable, load


def table_of(tmp_path: Path, text: str, settings: Prices | None = None) -> PriceTable:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return load(path, settings or Prices())


@given(st.decimals(0, 10**6, places=9, allow_nan=False))
def test_nanos_when_nine_decimals_then_exact(value: Decimal) -> None:
    assert Decimal(price_file.to_nanos(str(value))) == (value * price_file.NANOS).quantize(Decimal(1), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alpha: {input: -1}", "between 0 and"),
        ("alpha: {input: 9999999}", "between 0 and"),
        ("alpha: {input: '0.0000000001'}", "nine decimal"),
        ("alpha: {input: cheap}", "must be a number"),
        ("alpha: {input: .nan}", "must be a number"),
        ("alpha: {input: true}", "must be a number"),
        ("alpha: {inptu: 1}", "'inptu' is not one of"),
        ("alpha: {}", "must map"),
        ("alpha: 5", "must map"),
        ("- alpha", "must map model names"),
        ("{", "not YAML"),
        ("alpha: {input: 1}\nAlpha: {input: 2}", "'alpha': in line 1 and in line 2; leave one of them out"),
        ("alpha: {input: 1, input: 2}", "'alpha': 'input' is there twice"),
        ("alpha: {input: 1}\nalpha@flexx: {input: 2}", "'flexx' is no tier; did you mean alpha@flex?"),
        ("alpha: {input: 1}\nalpha@fast: {input: 2}", "write alpha@priority: both are that tier"),
        (
            "alpha: {input: 1}\nalpha@flex: {input: 2}\nalpha@flex>9: {input: 3}",
            "'alpha@flex>9': a tier costs more in proportion to 'alpha' above some length of input: leave this row out",
        ),
        ("alpha: {input: 1}\nalpha>8: {input: 2}\nalpha>9: {input: 3}", "'alpha>9': 'alpha' has such a row already"),
        ("alpha: {input: 1}\nalpha>8: {audio_input: 2}", "'alpha' has no price of audio_input that this could raise"),
        ("alpha: {inptu: 1}", "did you mean input"),
    ],
)
def test_load_when_table_is_wrong_then_refused_with_the_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PriceTableError, match=complaint):
        table_of(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["base: &base {input: 1}\nalpha: {<<: *base, input: 2}", "<<: {alpha: {input: 1}}\nalpha: {input: 2}"]
)
def test_load_when_a_row_replaces_what_it_merges_then_nothing_is_there_twice(tmp_path: Path, text: str) -> None:
    assert table_of(tmp_path, text).price("alpha", Usage(input_tokens=1_000_000)) == (2 * price_file.NANOS, True)


@pytest.mark.parametrize("name", ["alpha@2407", "alpha@001", "alpha@default", "alpha@latest", "other@flexx"])
def test_load_when_a_release_is_written_behind_an_at_then_it_is_a_model(tmp_path: Path, name: str) -> None:
    assert table_of(tmp_path, f"alpha: {{input: 1}}\n{name}: {{input: 2}}").knows(name)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            {"alhpa": {"output": 9}},
            "'alhpa': a model of your own needs a price of input, if only 0; did you mean",
        ),
        ({"ALPHA": {"input": 1}, "alpha": {"input": 2}}, "'alpha': is there twice"),
        ({"mine": {"input": 1}, "mine@priorty": {"input": 2}}, "did you mean mine@priority"),
        ({"alpha@batch>9": {"input": 2}}, "leave this row out"),
    ],
)
def test_load_when_an_override_could_have_no_effect_then_refused_with_what_to_write(
    tmp_path: Path, overrides: dict[str, dict[str, Decimal]], complaint: str
) -> None:
    with pytest.raises(PriceTableError, match=re.escape(complaint)):
        table_of(tmp_path, "alpha: {input: 1}", Prices(overrides=overrides))


def test_load_when_several_mistakes_then_all_are_told(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError) as caught:
        table_of(tmp_path, "alpha: {input: -1}\nbeta: {output: x}\ngamma: {foo: 1}")
    assert [name in str(caught.value) for name in ("alpha", "beta", "gamma")] == [True] * 3


def test_load_when_file_is_missing_then_named(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError, match=r"absent\.yaml"):
        load(tmp_path / "absent.yaml", Prices())
