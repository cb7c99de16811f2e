"""Prices: exact to the nano-dollar, nothing paid twice, names resolved by rule."""

import gc
import time
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy import resources
from proxy.config.schema import Prices
from proxy.exchange import Usage
from proxy.upstream import price_file, price_row, pricing
from proxy.upstream.pricing import PriceTable, PriceTableError

SHIPPED = resources.ROOT / "config" / "prices.yaml"
MILLION = 1_000_000


@pytest.fixture(scope="module")
def shipped() -> PriceTable:
    return pricing.load(None, Prices())


def table_of(tmp_path: Path, text: str, settings: Prices | None = None) -> PriceTable:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    return pricing.load(path, settings or Prices())


def dollars(cost_nanos: int) -> Decimal:
    return Decimal(cost_nanos) / price_file.NANOS


# --- the shipped table ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        ("gpt-4o", Usage(MILLION, MILLION), "12.50"),
        ("gpt-4o", Usage(MILLION, 0, cached_input_tokens=MILLION), "1.25"),
        ("gpt-4o-2024-05-13", Usage(MILLION, MILLION), "20"),
        ("gpt-4o-mini", Usage(MILLION, MILLION), "0.75"),
        ("gpt-4.1", Usage(MILLION, MILLION, cached_input_tokens=MILLION), "8.50"),
        ("o3", Usage(MILLION, MILLION), "10"),
        ("gpt-5", Usage(MILLION, MILLION), "11.25"),
        ("gpt-realtime", Usage(MILLION, MILLION, audio_input_tokens=MILLION, audio_output_tokens=MILLION), "96"),
        ("claude-sonnet-4-5", Usage(MILLION, 0, cache_write_tokens=MILLION), "7.5"),
        ("claude-haiku-4-5-20251001", Usage(MILLION, MILLION), "6"),
        ("gemini-2.5-pro", Usage(MILLION, MILLION), "17.5"),
        ("grok-4", Usage(MILLION, MILLION), "18"),
        ("deepseek-chat", Usage(MILLION, MILLION), "1.37"),
        ("text-embedding-3-small", Usage(MILLION, 0), "0.02"),
        ("whisper-1", Usage(audio_seconds=60.0), "0.006"),
        (
            "gpt-realtime",  # 40 text, 100 audio, 10 image, and 450 of all kinds that are cached
            Usage(
                600,
                cached_input_tokens=450,
                audio_input_tokens=300,
                image_input_tokens=60,
                cached_audio_tokens=200,
                cached_image_tokens=50,
            ),
            "0.00359",
        ),
    ],
)
def test_price_when_model_is_well_known_then_list_price(
    shipped: PriceTable, model: str, usage: Usage, cost: str
) -> None:
    nanos, priced = shipped.price(model, usage)
    assert (dollars(nanos), priced) == (Decimal(cost), True)


def test_shipped_table_when_read_then_large_quick_exact_and_sorted() -> None:
    text = SHIPPED.read_bytes()
    gc.disable()  # what other tests have left would be looked through again and again
    started = time.process_time()
    document = yaml.load(text, Loader=yaml.CSafeLoader)
    gc.enable()
    assert time.process_time() - started < 0.25, "the budget is 60 ms; this bound allows for a busy machine"
    assert len(document) > 300
    assert list(document) == sorted(document)
    assert all(isinstance(value, str) for row in document.values() for value in row.values())
    assert all((Decimal(value) * price_file.NANOS) % 1 == 0 for row in document.values() for value in row.values())
    assert b"genai-prices" in text.split(b"\n\n")[0], "the source is named at the head"


def test_shipped_table_when_loaded_then_every_row_answers_to_its_name(shipped: PriceTable) -> None:
    names = yaml.load(SHIPPED.read_bytes(), Loader=yaml.CSafeLoader)
    models = [name for name in names if "@" not in name and ">" not in name]
    assert len(shipped) == len(models)
    assert all(shipped.knows(name) for name in models)


# --- tiers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "tier", "expected"),
    [
        ("gpt-5", None, "11.25"),
        ("gpt-5", "default", "11.25"),
        ("gpt-5", "auto", "11.25"),
        ("gpt-5", "scale", "11.25"),
        ("gpt-5", "flex", "5.625"),
        ("gpt-5", "priority", "22.5"),
        ("gpt-5", "fast", "22.5"),
        ("gpt-5", "batch", "11.25"),
        ("gpt-5-2025-08-07", "priority", "22.5"),
        ("openai/gpt-5", "flex", "5.625"),
        ("gpt-5-mini", "priority", "4.05"),
        ("gpt-4o", "priority", "21.25"),
        ("gpt-4o-2024-11-20", "priority", "21.25"),
        ("gpt-4o-2024-05-13", "priority", "35"),
        ("gpt-5.5", "priority", "137.5"),
    ],
)
def test_price_when_an_answer_names_its_tier_then_the_providers_list_price_counts(shipped, model, tier, expected):
    assert shipped.at(tier).price(model, Usage(MILLION, MILLION)) == (Decimal(expected) * price_file.NANOS, True)


def test_price_when_input_was_cached_then_it_costs_what_the_tier_says(shipped):
    usage = Usage(MILLION, 0, cached_input_tokens=MILLION)
    assert shipped.at("flex").price("gpt-5", usage) == (62_500_000, True)
    assert shipped.at("priority").price("gpt-5", usage) == (250_000_000, True)


def test_price_when_a_dearer_tier_has_no_price_then_it_errs_upwards_and_is_told(shipped):
    assert shipped.at("priority").price("gpt-5-nano", Usage(MILLION, 0)) == (125_000_000, False)
    assert shipped.at("priority").highest_prices("gpt-5-nano", media=False) == (125_000_000, 1_000_000_000)
    assert shipped.at("priority").price("nobody's", Usage(MILLION, 0)) == shipped.price("nobody's", Usage(MILLION, 0))


def test_shipped_table_when_a_tier_is_dearer_then_by_no_more_than_is_assumed(shipped):
    names = yaml.load(SHIPPED.read_bytes(), Loader=yaml.CSafeLoader)
    up, down = price_row._DEARER
    for name, row in names.items():
        model, _, tier = name.rpartition("@")
        for unit, cost in row.items() if tier == "priority" else ():
            assert Decimal(cost) * down <= Decimal(names[model].get(unit, names[model]["input"])) * up, name


def test_highest_prices_when_a_tier_is_asked_for_then_the_standard_one_is_covered_too(shipped):
    standard = shipped.highest_prices("gpt-5", media=False)
    assert standard == (1_250_000_000, 10_000_000_000)
    assert shipped.at("flex").highest_prices("gpt-5", media=False) == standard
    assert shipped.at("priority").highest_prices("gpt-5", media=False) == (2_500_000_000, 20_000_000_000)


def test_load_when_own_prices_name_a_tier_then_what_they_leave_out_costs_as_the_model(tmp_path):
    own = Prices(overrides={"own@priority": {"output": 5}, "own@batch": {"input": 0.5}})
    table = table_of(tmp_path, "own: {input: 1, output: 2}", own)
    assert table.at("priority").price("own", Usage(MILLION, MILLION)) == (6_000_000_000, True)
    assert table.at("batch").price("own", Usage(MILLION, MILLION)) == (2_500_000_000, True)
    assert not table.knows("own@priority"), "a tier is no model"


def test_load_when_a_tier_has_no_model_then_the_table_is_refused(tmp_path):
    with pytest.raises(PriceTableError, match=r"prices of 'own@flex': 'own' has no prices of its own"):
        table_of(tmp_path, "other: {input: 1}", Prices(overrides={"own@flex": {"input": 1}}))


def test_tier_when_many_models_are_asked_for_then_few_are_remembered(tmp_path):
    table = table_of(tmp_path, "m: {input: 1}\nm@flex: {input: 0.5}")
    for number in range(2 * pricing.MAX_REMEMBERED):
        assert table.at("flex").price(f"x/{number}/m", Usage(MILLION, 0)) == (500_000_000, True)
    assert len(table.at("flex")._remembered) <= pricing.MAX_REMEMBERED


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "input_price"),
    [
        ("alpha", 1),
        ("ALPHA", 1),
        ("Mixed", 2),
        ("mixed", 2),
        ("alpha-2024-08-06", 1),
        ("alpha-20240806", 1),
        ("alpha@20240806", 1),
        ("alpha-2025-01-01", 3),
        ("ft:alpha:org::id", 4),
        ("ft:alpha-2024-08-06:org:name:id", 4),
        ("ft:mixed:org::id", 2),
        ("ft:alpha-2025-01-01:org::id", 4),
        ("someone/alpha", 1),
        ("a/b/alpha-2024-08-06", 1),
        ("host/alpha", 5),
        ("alph", None),
        ("alpha-mini", None),
        ("alpha2", None),
        ("alpha-0806", None),
        ("alpha-2024-99-99", None),
        ("ft:", None),
        ("", None),
        ("/", None),
        ("alpha/", None),
        (None, None),
        ("alpha" + "x" * 300, None),
        ("x/" * 400 + "alpha", None),
    ],
)
def test_find_when_name_is_written_otherwise_then_by_rule_only(
    tmp_path: Path, model: str | None, input_price: int | None
) -> None:
    table = table_of(
        tmp_path,
        "alpha: {input: 1}\nMixed: {input: 2}\nalpha-2025-01-01: {input: 3}\n"
        "ft:alpha: {input: 4}\nhost/alpha: {input: 5}",
    )
    assert table.knows(model) == (input_price is not None)
    cost, priced = table.price(model, Usage(input_tokens=MILLION))
    assert (dollars(cost), priced) == ((input_price, True) if input_price else (10, False))


def test_find_when_flooded_with_names_then_memory_stays_bounded(tmp_path: Path) -> None:
    table = table_of(tmp_path, "alpha: {input: 1}")
    for number in range(3 * pricing.MAX_REMEMBERED):
        assert not table.knows(f"name-{number}")
    assert len(table._remembered) <= pricing.MAX_REMEMBERED
    assert table.knows("alpha")


@given(st.text(max_size=60))
def test_candidate_names_when_any_text_then_first_is_the_name_itself(model: str) -> None:
    names = list(pricing.candidate_names(model))
    assert names[0] == model.lower()
    assert len(names) <= 2 * (model.lower().count("/") + 1) + 4


# --- reading ---------------------------------------------------------------------------------------------------------


# --- unknown models and settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "cost"), [("estimate", 40), ("deny", 40), ("free", 0)])
def test_price_when_model_is_unknown_then_policy_decides(tmp_path: Path, policy: str, cost: int) -> None:
    table = table_of(tmp_path, "alpha: {input: 1}", Prices.model_validate({"unknown_model": policy}))
    nanos, priced = table.price("nobody", Usage(MILLION, MILLION))
    assert (dollars(nanos), priced) == (cost, False)


@pytest.mark.parametrize(
    ("usage", "priced"),
    [
        (Usage(images=1), False),
        (Usage(audio_seconds=1.0), False),
        (Usage(input_tokens=1, images=1), True),
        (Usage(output_tokens=1, audio_seconds=1.0), True),
        (Usage(), True),
    ],
)
def test_price_when_unit_has_no_price_then_not_priced(tmp_path: Path, usage: Usage, priced: bool) -> None:
    assert table_of(tmp_path, "alpha: {input: 1, output: 2}").price("alpha", usage)[1] is priced


def test_load_when_overrides_given_then_single_prices_are_replaced(tmp_path: Path) -> None:
    settings = Prices(overrides={"Alpha": {"output": Decimal("0.5")}, "own": {"per_image": Decimal("0.04")}})
    table = table_of(tmp_path, "alpha: {input: '1', output: '2'}", settings)
    assert dollars(table.price("alpha", Usage(MILLION, MILLION))[0]) == Decimal("1.5")
    assert dollars(table.price("own", Usage(images=2))[0]) == Decimal("0.08")


DATED = """
alpha: {input: '2', cached_input: '1', output: '4'}
alpha-2024-08-06: {input: '2', cached_input: '1', output: '4'}
alpha-2024-05-13: {input: '3', output: '4'}
alpha>1000: {input: '4', output: '6'}
alpha@flex: {input: '1', output: '2'}
"""


def test_load_when_a_model_is_overridden_then_releases_that_cost_the_same_are_too(tmp_path: Path) -> None:
    """Providers answer under the names of releases."""
    table = table_of(tmp_path, DATED, Prices(overrides={"Alpha": {"input": Decimal(1)}}))
    names = ("alpha", "alpha-2024-08-06", "alpha-2024-05-13")
    assert [table.price(name, Usage(1000))[0] for name in names] == [1_000_000, 1_000_000, 3_000_000]
    both = {"alpha": {"input": Decimal(1)}, "alpha-2024-08-06": {"input": Decimal(5)}}
    table = table_of(tmp_path, DATED, Prices(overrides=both))
    assert [table.price(name, Usage(1000))[0] for name in names] == [1_000_000, 5_000_000, 3_000_000]
    assert [table.is_own(name) for name in ("ALPHA", "alpha-2024-05-13")] == [True, False]
    assert table.at("flex").is_own("alpha")


@pytest.mark.parametrize(
    ("name", "usage", "nanos"),
    [
        pytest.param("alpha", Usage(1000, 1), 2_004_000, id="up to that"),
        pytest.param("alpha", Usage(1001, 1), 4_010_000, id="all of a longer one"),
        pytest.param("alpha", Usage(1001, 0, 1001), 1_001_000, id="a class without another price"),
        pytest.param("alpha-2024-08-06", Usage(1001, 1), 4_010_000, id="a release that costs the same"),
        pytest.param("alpha-2024-05-13", Usage(1001, 1), 3_007_000, id="one that does not"),
    ],
)
def test_price_when_the_input_is_long_then_the_whole_call_costs_more(
    tmp_path: Path, name: str, usage: Usage, nanos: int
) -> None:
    assert table_of(tmp_path, DATED).price(name, usage) == (nanos, True)


def test_price_when_the_input_is_long_then_tiers_and_overrides_cost_more_in_proportion(tmp_path: Path) -> None:
    table = table_of(tmp_path, DATED)
    assert table.at("flex").price("alpha", Usage(1001, 1)) == (2_005_000, True)
    assert table.at("priority").price("alpha", Usage(1001, 1)) == (10_025_000, False)
    table = table_of(tmp_path, DATED, Prices(overrides={"alpha": {"input": Decimal("1.5")}}))
    assert table.price("alpha", Usage(1001)) == (3_003_000, True)


def test_price_when_usage_is_a_sum_then_its_largest_call_decides(tmp_path: Path) -> None:
    table = table_of(tmp_path, DATED)
    for prices, nanos in ((table, 6_000_000), (table.at("flex"), 3_000_000), (table.at("priority"), 15_000_000)):
        assert prices.price("alpha", Usage(3000), 1000)[0] == nanos
        assert prices.price("alpha", Usage(3000), 1001)[0] == 2 * nanos


def test_highest_prices_when_the_input_may_be_long_then_they_cover_it(tmp_path: Path) -> None:
    table = table_of(tmp_path, DATED)
    assert table.highest_prices("alpha", media=False) == (4 * 10**9, 6 * 10**9)
    assert table.highest_prices("alpha", media=False, input_tokens=1001) == (4 * 10**9, 6 * 10**9)
    assert table.highest_prices("alpha", media=False, input_tokens=1000) == (2 * 10**9, 4 * 10**9)
    assert table.at("priority").highest_prices("alpha", media=True, input_tokens=1000) == (5 * 10**9, 10**10)


@pytest.mark.parametrize("name", ["beta>1000", "alpha>many"])
def test_load_when_a_long_input_has_no_model_or_length_then_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PriceTableError, match="above a number of tokens"):
        table_of(tmp_path, f"alpha: {{input: '1'}}\n'{name}': {{input: '2'}}")


def test_load_when_the_price_of_a_long_input_is_overridden_then_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError, match="follow from those of the model"):
        table_of(tmp_path, DATED, Prices(overrides={"alpha>1000": {"input": Decimal(1)}}))


def test_shipped_table_when_prices_depend_on_length_or_kind_then_it_has_them(shipped: PriceTable) -> None:
    assert shipped.price("gpt-5.4-2026-03-05", Usage(272_001))[0] == 2 * 272_001 * 2500
    assert shipped.price("gpt-5.4", Usage(272_000))[0] == 272_000 * 2500
    audio = Usage(100, 50, audio_input_tokens=100, audio_output_tokens=50)
    assert shipped.price("gpt-4o-audio-preview-2025-06-03", audio)[0] == 100 * 40_000 + 50 * 80_000


def test_table_when_unknown_price_is_not_exact_then_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceTableError, match="unknown_price"):
        table_of(tmp_path, "alpha: {input: 1}", Prices(unknown_price={"input": Decimal("1e-12")}))


# --- the most expensive class ----------------------------------------------------------------------------------------


def test_highest_prices_when_media_are_ruled_out_then_only_text_is_priced(shipped: PriceTable) -> None:
    assert shipped.highest_prices("gpt-audio", media=False) == (2_500_000_000, 10_000_000_000)
    assert shipped.highest_prices("gpt-audio", media=True) == (32_000_000_000, 64_000_000_000)


@pytest.mark.parametrize(
    ("policy", "expected"), [("estimate", (10_000_000_000, 30_000_000_000)), ("free", (0, 0))], ids=["estimate", "free"]
)
def test_highest_prices_when_a_model_is_unknown_then_the_settings_decide(policy, expected) -> None:
    table = PriceTable({}, Prices(unknown_model=policy))
    assert table.highest_prices("nobody's", media=True) == table.highest_prices(None, media=False) == expected
