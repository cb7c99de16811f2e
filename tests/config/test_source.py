import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import schema
from proxy.config.keys import KEYS, children
from proxy.config.problems import Layer, Origin
from proxy.config.source import read_file, read_mapping, read_text, scalar, unknown_key


def read(text: str) -> Layer:
    layer = Layer()
    read_text(text, "f.yaml", layer)
    return layer


def values(layer: Layer) -> dict[str, object]:
    return {".".join(path): setting.value for path, setting in layer.settings.items()}


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read(text).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("FALSE", False),
        ("off", "off"),
        ("yes", "yes"),
        ("8080", 8080),
        ("-3", -3),
        ("010", 10),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"),
        ("1.10", Decimal("1.10")),
        (".5", Decimal("0.5")),
        ("1e3", Decimal("1e3")),
        ("1e9999", "1e9999"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalar_of_each_form_means_what_yaml_1_2_says(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_read_text_of_nested_keys_keeps_values_and_lines():
    layer = read("data_dir: /d\nserver:\n  listen: {host: '::1', port: 1}\n  drain_s: 1.5\ntracing:\n  content: off\n")
    assert values(layer) == {
        "data_dir": "/d",
        "server.listen.host": "::1",
        "server.listen.port": 1,
        "server.drain_s": Decimal("1.5"),
        "tracing.content": "off",
    }
    assert layer.settings["server", "drain_s"].origin == Origin("file", "f.yaml", 4)
    assert not layer.problems


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null", "server:\n", "server:\n  listen:\n"])
def test_read_text_of_empty_documents_and_sections_sets_nothing(text):
    layer = read(text)
    assert not layer.settings
    assert not layer.problems


def test_read_text_of_anchors_gives_the_same_value_twice():
    layer = read("server: {listen: {host: &x a}, ops_listen: {host: *x}}")
    assert values(layer) == {"server.listen.host": "a", "server.ops_listen.host": "a"}
    assert not layer.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", "f.yaml:1: the document must be a mapping of sections and keys"),
        ("word", "f.yaml:1: the document must be a mapping of sections and keys"),
        ("\nsrver: {}", "f.yaml:2: srver: unknown key; did you mean server?"),
        ("drain_s: 1", "f.yaml:1: drain_s: unknown key; did you mean server.drain_s?"),
        ("server: {gap_s: 1}", "f.yaml:1: server.gap_s: unknown key; did you mean timeouts.gap_s?"),
        ("upstream: {url: x}", "f.yaml:1: upstream.url: unknown key; did you mean base_url?"),
        (
            "server: {port: 1}",
            "f.yaml:1: server.port: unknown key; did you mean server.listen.port or server.ops_listen.port?",
        ),
        ("server.drain_s: 1", "f.yaml:1: server.drain_s: unknown key; write sections as nested keys, not with dots"),
        ("qqqqqq: 1", "f.yaml:1: qqqqqq: unknown key"),
        ("server: 5", f"f.yaml:1: server: is a section with the keys {', '.join(schema.Server.model_fields)}"),
        ("data_dir: a\ndata_dir: b", "f.yaml:2: data_dir: is given twice; first in line 1"),
        ("upstream: {headers: {A: x,\n A: y}}", "f.yaml:2: upstream.headers.A: is given twice; first in line 1"),
        ("? [a]\n: 1", "f.yaml:1: a key must be a plain word"),
        ("data_dir: [a]", "f.yaml:1: data_dir: must be a single value"),
        ("data_dir: {a: b}", "f.yaml:1: data_dir: must be a single value"),
        ("upstream:\n  headers: [a]", "f.yaml:2: upstream.headers: must be a mapping of names to values"),
        ("upstream:\n  headers:\n    A: {b: c}", "f.yaml:3: upstream.headers.A: must be a single value"),
        ("data_dir: !!python/object x", "f.yaml:1: data_dir: tags (!...) are not supported"),
        ("data_dir: !secret x", "f.yaml:1: data_dir: tags (!...) are not supported"),
        ("data_dir: *gone", "f.yaml:1: is not valid YAML: found undefined alias"),
        (
            "a: 1\n---\nb: 2",
            "f.yaml:2: is not valid YAML: expected a single document in the stream, but found another document",
        ),
        ("data_dir: 'x", "f.yaml:1: is not valid YAML: while scanning a quoted scalar, found unexpected end of stream"),
        ("a: 1\nb: \x07", "f.yaml:2: holds a control character that YAML does not allow"),
    ],
)
def test_read_text_of_a_mistake_names_its_line_and_what_is_right(text, expected):
    assert problems(text) == [expected]


def test_read_text_of_a_self_containing_alias_or_a_bomb_ends_at_once():
    bomb = "a: &a [x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    assert all("unknown key" in line for line in problems(bomb))
    assert problems("upstream: {headers: &h {A: *h}}") == ["f.yaml:1: upstream.headers.A: must be a single value"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_read_text_of_very_many_levels_is_a_mistake_and_not_a_crash(opening):
    assert problems("\n" + opening * 100_000) == ["f.yaml:2: is nested more deeply than any key"]


@given(st.text(max_size=60))
def test_read_text_of_anything_never_raises(text):
    read(text)
    read(f"upstream:\n  headers: {text}\n")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"data_dir: \xff\n", ":1: is not UTF-8 text"),
        (b"\n\n\xff", ":3: is not UTF-8 text"),
        (b"#" * 4_194_305, ": is larger than 4194304 bytes; this is not a configuration file"),
    ],
)
def test_read_file_of_something_else_says_so(tmp_path, content, text):
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    assert [str(problem) for problem in read_file(file).problems] == [f"{file}{text}"]


def test_read_file_when_it_is_missing_or_a_directory_says_so(tmp_path):
    missing = tmp_path / "none.yaml"
    assert [str(p) for p in read_file(missing).problems] == [f"{missing}: cannot be read: No such file or directory"]
    assert [str(p) for p in read_file(tmp_path).problems] == [f"{tmp_path}: cannot be read: Is a directory"]


def test_read_file_with_a_byte_order_mark_and_crlf_is_read(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfdata_dir: d\r\nserver:\r\n  drain_s: 3\r\n")
    assert values(read_file(file)) == {"data_dir": "d", "server.drain_s": 3}


def slip(word: str, kind: int) -> str:
    """Lose a letter, double one, replace one, or swap two neighbours."""
    i = (kind * 7 + len(word) // 2) % (len(word) - 1)
    middle = ("", word[i] * 2, "~", word[i + 1] + word[i])[kind % 4]
    return word[:i] + middle + word[i + (2 if kind % 4 == 3 else 1) :]


@pytest.mark.parametrize("section", sorted({path[:-1] for path in KEYS}), ids=".".join)
def test_unknown_key_for_a_slip_of_every_key_suggests_the_right_one(section):
    for kind, path in enumerate(KEYS):
        mistaken = slip(path[-1], kind)
        if path[:-1] == section and mistaken not in children(section):
            assert unknown_key(section, mistaken) == f"unknown key; did you mean {path[-1]}?", mistaken


def test_read_mapping_of_json_and_yaml_gives_data_with_the_origin_of_the_variable():
    origin = Origin("environment", "N")
    for text in ('{"gpt-x": {"input": 0.1}}', "{gpt-x: {input: 0.1}}"):
        layer = Layer()
        read_mapping(text, KEYS["prices", "overrides"], origin, layer)
        setting = layer.settings["prices", "overrides"]
        assert (setting.value, setting.origin) == ({"gpt-x": {"input": Decimal("0.1")}}, origin)


@pytest.mark.parametrize("text", ["{a", "[1]", "{a: [1]}", "word", "{a: 1, a: 2}"])
def test_read_mapping_of_something_else_is_a_problem_of_the_variable(text):
    layer = Layer()
    read_mapping(text, KEYS["upstream", "headers"], Origin("environment", "N"), layer)
    fits = KEYS["upstream", "headers"].fits
    assert layer.problems or not all(fits(setting.value) for setting in layer.settings.values())
    assert all(str(problem).startswith("environment: N: ") for problem in layer.problems)


def test_read_file_with_thousands_of_unknown_keys_guesses_for_the_first_ones_only(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("server:\n" + "".join(f"  drains{number}: 1\n" for number in range(20_000)))
    began = time.process_time()
    problems = read_file(file).problems
    assert time.process_time() - began < 10, "a minute if all are looked at"
    assert len(problems) == 20_000
    assert "did you mean" in problems[0].text
    assert problems[-1].text == "unknown key"
