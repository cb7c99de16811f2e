from decimal import Decimal
from functools import reduce

import pytest
from pydantic import SecretStr

from proxy.config.keys import KEYS, SECTIONS, children
from proxy.config.schema import Config


def test_keys_for_the_schema_hold_every_leaf_with_its_default():
    assert len(KEYS) > 60
    for path, key in KEYS.items():
        assert reduce(getattr, path, Config()) == key.default


def test_keys_for_every_row_have_a_description_and_a_unit_in_the_name_or_text():
    for key in KEYS.values():
        assert key.description.endswith((".", ">", ")")), key.name


def test_keys_that_can_hold_a_secret_are_hidden():
    hidden = {key.name for key in KEYS.values() if key.hidden}
    assert hidden == {"admin_key", "upstream.api_key", "upstream.headers", "upstreams", "database.url", "otel.headers"}
    assert not any(isinstance(key.default, SecretStr) for key in KEYS.values())


@pytest.mark.parametrize(
    ("path", "kind", "optional", "depth"),
    [
        (("server", "listen", "port"), "integer", False, 0),
        (("timeouts", "gap_s"), "number", False, 0),
        (("tracing", "content"), "choice", False, 0),
        (("tracing", "enabled"), "flag", False, 0),
        (("client", "ca_file"), "text", True, 0),
        (("database", "url"), "secret", True, 0),
        (("upstream", "headers"), "mapping", False, 1),
        (("prices", "overrides"), "mapping", False, 2),
    ],
)
def test_key_for_each_kind_of_annotation_is_classified(path, kind, optional, depth):
    key = KEYS[path]
    assert (key.kind, key.optional, key.depth) == (kind, optional, depth)
    assert bool(key.choices) == (kind == "choice")


@pytest.mark.parametrize(
    ("path", "fitting", "misfit"),
    [
        (("server", "listen", "port"), [0, 80], [True, Decimal("1.5"), "80", None, {}]),
        (("timeouts", "gap_s"), [1, Decimal("0.5")], [True, "1", None, {}]),
        (("tracing", "content"), ["off", "full"], [False, "of", None, 1]),
        (("tracing", "enabled"), [True, False], ["true", 1, None]),
        (("data_dir",), ["var", ""], [1, None, True, {}]),
        (("upstream", "headers"), [{}], ["", None, 1]),
    ],
)
def test_fits_for_values_of_every_type_accepts_only_the_right_one(path, fitting, misfit):
    assert all(KEYS[path].fits(value) for value in fitting)
    assert not any(KEYS[path].fits(value) for value in misfit)


def test_expectation_for_every_key_says_what_is_wanted():
    assert all(key.expectation().startswith("must be ") for key in KEYS.values())


def test_children_of_a_section_are_its_direct_names():
    assert children(("server", "listen")) == ("host", "port")
    assert children(("server",))[:2] == ("kind", "listen")
    assert ("server", "listen") in SECTIONS
    assert () in SECTIONS
