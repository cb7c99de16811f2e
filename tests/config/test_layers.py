import pytest

from proxy.config.layers import LayersError, load
from proxy.config.routing import LAYERS
from proxy.config.schema import Config, Prices, UpstreamEntry
from proxy.upstream.pricing import load as load_prices

ONE = (UpstreamEntry(name="one", models={"m": "*"}),)


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        path = tmp_path / "layers.yaml"
        path.write_text(text)
        return path

    return write


def test_shipped_layers_are_priced_and_each_is_dearer_than_the_one_below():
    layers, prices = load(None, Config().providers), load_prices(None, Prices())
    highest = []
    for layer in LAYERS:
        entries = layers.of(layer)
        assert len(entries) >= 2
        assert all(prices.knows(entry.model) for entry in entries)
        highest.append(max(prices.highest_prices(entry.model, media=False) for entry in entries))
    assert highest == sorted(highest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L0: [", "is not valid YAML"),
        ("- a", "must map L0, L1, L2 and L3"),
        ("L9: []", "L9: Extra inputs"),
        ("L0: [{model: m, capabilities: [magic]}]", "L0.0.capabilities.0"),
        ("L0: [{model: m, upstream: other}]", "L0.0.upstream: 'other' is not one of one"),
        ("L1: [{model: x}]", "L1.0.model: one does not have 'x'"),
        ("L1: [{model: m, weight: 0}]", "L1.0.weight"),
    ],
)
def test_layers_with_a_mistake_are_refused_with_its_place(write, text, expected):
    with pytest.raises(LayersError, match=expected):
        load(write(text), ONE)


def test_layers_when_a_file_is_missing_or_too_large_are_refused(tmp_path, write):
    with pytest.raises(LayersError, match="No such file"):
        load(tmp_path / "none.yaml", ONE)
    with pytest.raises(LayersError, match="larger than"):
        load(write("#" * 1_048_577), ONE)


def test_layers_when_left_empty_are_none(write):
    layers = load(write("L0:\nL1: [{model: m, weight: 3, context_tokens: 9}]"), ONE)
    assert layers.of("L0") == ()
    assert layers.of("L1")[0].context_tokens == 9
