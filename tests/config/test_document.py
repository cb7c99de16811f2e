import json
import re
from decimal import Decimal
from functools import reduce
from pathlib import Path

import pytest
import yaml

from proxy.config.document import json_schema, yaml_document, yaml_value
from proxy.config.environment import VARIABLES
from proxy.config.keys import KEYS
from proxy.config.load import load
from proxy.config.schema import Config
from proxy.resources import ROOT

FILE = ROOT / "config" / "sidegate.yaml"
SCHEMA = ROOT / "config" / "sidegate.schema.json"


def test_shipped_yaml_is_what_config_template_prints():
    assert FILE.read_text() == yaml_document(), "run: sidegate config template > config/sidegate.yaml"


def test_shipped_schema_is_what_config_schema_prints():
    assert SCHEMA.read_text() == json_schema(), "run: sidegate config schema > config/sidegate.schema.json"


def test_shipped_yaml_holds_every_key_and_nothing_but_defaults():
    loaded = load(FILE, {}, {})
    assert loaded.config == Config()
    assert {origin.kind for origin in loaded.origins.values()} == {"file"}
    assert loaded.warnings == ()


def test_shipped_yaml_means_the_same_to_a_yaml_1_1_reader():
    document = yaml.safe_load(FILE.read_text())
    for path, key in KEYS.items():
        value = reduce(lambda node, name: node[name], path, document)
        assert (tuple(value) if key.kind == "list" else value) == key.default, key.name


def test_shipped_yaml_explains_every_key_and_fits_the_page():
    lines = FILE.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=sidegate.schema.json"
    assert max(map(len, lines)) <= 120
    for number, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            assert lines[number - 1].lstrip().startswith("# "), line


def test_json_schema_names_every_key_and_requires_none():
    schema = json.loads(json_schema())
    for path, key in KEYS.items():
        node = schema
        for name in path:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
            assert node["additionalProperties"] is False
            node = node["properties"][name]
        assert node["description"] == key.description
        assert "default" in node or key.name in ("server.listen.port", "server.ops_listen.port") or key.depth
    assert '"required"' not in json_schema()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5, "5"),
        (0.5, "0.5"),
        (86_400.0, "86400"),
        (1e7, "10000000.0"),
        (Decimal("0.10"), "0.10"),
        ({}, "{}"),
        ({"a": Decimal(1), "b": "c"}, "{a: 1, b: c}"),
        ("off", '"off"'),
        ("info", "info"),
    ],
)
def test_yaml_value_of_each_type_is_one_line_of_yaml(value, text):
    assert yaml_value(value) == text


DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCUMENTATION, re.DOTALL))
def test_examples_of_the_documentation_are_valid(example, tmp_path):
    (tmp_path / "c.yaml").write_text(example)
    loaded = load(tmp_path / "c.yaml", {"OPENAI_API_KEY": "k", "AZURE_KEY": "k"}, {})
    assert loaded.config != Config()
    assert loaded.warnings == ()


def test_every_short_name_stands_in_the_documentation():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([a-z_.]+)`", DOCUMENTATION, re.MULTILINE))
    assert rows == {name: ".".join(path) for name, path in VARIABLES.items()}
