import pytest

from proxy.config.layers import Layers
from proxy.config.schema import UpstreamEntry
from proxy.routing.catalogue import Catalogue

LAYERS = Layers(
    L0=({"model": "small"}, {"model": "llama", "upstream": "local"}), L2=({"model": "large"}, {"model": "small"})
)


def catalogue(*upstreams) -> Catalogue:
    return Catalogue([UpstreamEntry(**upstream) for upstream in upstreams], LAYERS)


BOTH = ({"name": "main"}, {"name": "local", "models": {"llama": "llama3.2:8b", "qwen-*": "*"}})


@pytest.mark.parametrize(
    ("model", "hosts"),
    [
        ("gpt-4o", [("main", "gpt-4o")]),
        ("llama", [("local", "llama3.2:8b")]),
        ("qwen-7b", [("local", "qwen-7b")]),
    ],
)
def test_model_is_with_those_that_name_it_else_with_those_that_have_every_one(model, hosts):
    made = catalogue(*BOTH)
    for _ in range(2):
        assert [(offer.upstream, offer.own_name) for offer in made.hosts(model)] == hosts


def test_model_that_nobody_has_has_no_host():
    made = Catalogue([UpstreamEntry(models={"a": "*"})], Layers())
    assert made.hosts("b") == ()


def test_names_that_leave_the_choice_to_us_are_those_of_layers_unless_a_provider_has_such_a_model():
    made = catalogue(*BOTH)
    assert [made.virtual(name) for name in ("auto", "L2", "l2", "gpt-4o", None)] == [
        (True, None), (True, "L2"), (False, None), (False, None), (False, None),
    ]  # fmt: skip
    named = catalogue({"name": "main", "models": {"auto": "*", "*": "*"}}, BOTH[1])
    assert named.virtual("auto") == (False, None)


def test_offers_of_a_layer_know_the_providers_own_name_and_their_layer():
    made = catalogue(*BOTH)
    assert [(offer.upstream, offer.model, offer.own_name) for offer in made.layer("L0")] == [
        ("main", "small", "small"), ("local", "llama", "llama3.2:8b"),
    ]  # fmt: skip
    assert made.layers_of("small") == ["L0", "L2"]
    assert made.hosts("small")[0].layer == "L0"


def test_catalogue_of_one_provider_with_every_model_is_single():
    made = [Catalogue([UpstreamEntry()], Layers()), Catalogue([UpstreamEntry(models={"a": "b"})], Layers())]
    assert [one.is_single for one in (*made, catalogue(*BOTH))] == [True, False, False]


def test_listed_models_are_those_that_the_configuration_names():
    made = catalogue(*BOTH)
    assert made.named_models("L3") == [("large", "main"), ("llama", "local"), ("small", "main")]
    assert made.named_models("L1") == [("llama", "local"), ("small", "main")]
    assert made.virtual_names("L3") == ["auto", "L0", "L2"]
    assert made.virtual_names("L1") == ["auto", "L0"]
    assert Catalogue([UpstreamEntry()], Layers()).virtual_names("L3") == []


def test_memory_of_looked_up_models_is_bounded():
    made = catalogue(*BOTH)
    for number in range(5000):
        made.hosts(f"m{number}")
    assert len(made._hosts) <= 4096


@pytest.mark.parametrize(
    ("start", "highest", "models"),
    [
        ("L0", "L3", ["small", "llama", "large", "small"]),
        ("L2", "L2", ["large", "small", "small", "llama"]),
        ("L1", "L0", ["small", "llama", "large", "small"]),
    ],
)
def test_way_goes_up_to_the_highest_layer_then_down_then_above(start, highest, models):
    made = catalogue(*BOTH)
    assert [offer.model for tier in made.search_order(start, highest) for offer in tier.offers] == models
    assert made.layered_models() == ["small", "llama", "large"]
