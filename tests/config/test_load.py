import json
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from proxy.config.keys import KEYS, Key
from proxy.config.load import Loaded, load, load_from_process
from proxy.config.problems import ConfigError, Origin
from proxy.config.schema import Config

CANARY = "zq7CANARYzq7"


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> Path:
        file = tmp_path / "c.yaml"
        file.write_text(text)
        return file

    return write_file


def yaml_of(path: tuple[str, ...], value: str) -> str:
    """One key in block style, after one line of comment."""
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(path)]
    return "# head\n" + "\n".join(lines) + f" {value}\n"


def refused(path: Path | None, environ: dict[str, str] | None = None, flags: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, flags or {})
    return str(caught.value).splitlines()


def in_effect(loaded: Loaded, key: Key) -> object:
    value = reduce(getattr, key.path, loaded.config)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


OTHER_VALUES = {
    "choice": lambda key: next(choice for choice in key.choices if choice != key.default),
    "flag": lambda key: str(not key.default).lower(),
    "integer": lambda key: str(60 if key.path[-1].endswith("_days") else 8_000_000),
    "number": lambda key: "1.5",
}


def other_value(key: Key) -> str:
    """A legal value that is not the default, as YAML."""
    special = {
        "database.url": "postgresql://h/d",
        "upstream.base_url": "http://h/v1",
        "upstream.headers": "{X-A: b}",
        "prices.overrides": "{m: {input: 1}}",
        "policy.prompt_actions": "{secret.high: flag}",
        "policy.output_actions": "{github-token: block}",
        "prices.unknown_price": "{input: 1}",
        "quota.on_database_outage": "capped:2.50",
        "quota.cold_start_share": "0.2",
        "quota.cold_start_wait_s": "0.2",
        "quota.lease_share": "0.2",
        "server.listen.port": "81",
        "server.ops_listen.port": "81",
        "upstreams": "[{base_url: http://h/v1}]",
        "tracing.request_types": "[agent]",
        "routing.max_attempts": "5",
        "routing.complexity.code_points": "3",
        "routing.complexity.tools_points": "3",
        "routing.complexity.reasoning_points": "3",
        "routing.breaker.failure_share": "0.2",
        "shedding.critical_share": "0.3",
        "otel.endpoint": "http://h:4318",
        "otel.traces_endpoint": "http://h:4318/v1/traces",
        "otel.headers": "{api-key: b}",
        "otel.resource_attributes": "{a: b}",
        "otel.sampler_arg": "0.2",
        "routing.escalation.max_escalations": "1",
        "routing.escalation.refusals": "[no]",
        "routing.cross_check.review_output_tokens": "99",
    }
    return special.get(key.name) or OTHER_VALUES.get(key.kind, lambda _: "other")(key)


def test_load_of_nothing_gives_the_defaults_and_the_demo():
    loaded = load(None, {}, {})
    assert loaded.config == Config()
    assert loaded.demo
    assert loaded.path is None
    assert loaded.warnings == ()
    assert set(loaded.origins) == set(KEYS)
    assert set(map(str, loaded.origins.values())) == {"default"}


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_load_of_every_key_from_file_and_environment_takes_effect_with_its_origin(key, write):
    text = other_value(key)
    name = "SIDEGATE__" + "__".join(key.path).upper()
    by_file = load(write(yaml_of(key.path, text)), {}, {})
    by_environment = load(None, {name: text}, {})
    assert in_effect(by_file, key) == in_effect(by_environment, key) != key.default
    assert by_file.origins[key.path] == Origin("file", str(by_file.path), len(key.path) + 1)
    assert by_environment.origins[key.path] == Origin("environment", name)


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_load_of_every_key_misspelt_names_the_right_one_and_the_line(key, write):
    name = key.path[-1]
    slip = name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else name[:-1]
    file = write(yaml_of((*key.path[:-1], slip), other_value(key)))
    section = ".".join((*key.path[:-1], slip))
    assert refused(file) == [f"{file}:{len(key.path) + 1}: {section}: unknown key; did you mean {name}?"]


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.name)
def test_load_of_every_key_with_values_of_the_wrong_type_is_refused_with_the_line(key, write):
    wrong = {
        "text": ["1", "true", "1.5", "[a]", "{a: b}"],
        "secret": ["1", "true", "[a]", "{a: b}"],
        "choice": ["1", "true", "nonsense", "[a]"],
        "flag": ["1", "yes", "'true'", "[a]", "x"],
        "integer": ["1.5", "'1'", "true", "x", "[1]", "1e3"],
        "number": ["'1'", "true", "x", "[1]", ".inf", ".nan"],
        "mapping": ["1", "x", "[a]", "{a: [b]}", "{a: {b: {c: 1}}}"],
        "list": ["1", "x", "{a: b}", "[1]", "[{a: b}]", "[{name: [x]}]", "[{max_connections: x}]"],
    }[key.kind]
    for text in [*wrong, *([] if key.optional or key.kind in ("mapping", "list") else ["", "null"])]:
        [line, *more] = refused(write(yaml_of(key.path, text)))
        assert ".yaml:" in line, text
        assert f"{len(key.path) + 1}: {key.name}" in line, text
        assert not more, text


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if key.kind == "text" and not key.hidden], ids=lambda key: key.name
)
@pytest.mark.parametrize("value", ["${HOME}", "${HOME}/below", "$HOME", "file:/etc/hostname"])
def test_load_of_a_reference_where_none_is_resolved_is_refused(key, value, write):
    told = "takes no reference, as only secrets do; write the value"
    file = write(yaml_of(key.path, json.dumps(value)))
    assert refused(file) == [f"{file}:{len(key.path) + 1}: {key.name}: {told}"]
    name = "SIDEGATE__" + "__".join(key.path).upper()
    assert refused(None, {name: value, "HOME": "/h"}) == [f"environment: {name}: {told}"]


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if max(map(len, key.choices), default=0) > 2], ids=lambda key: key.name
)
def test_load_of_a_misspelt_choice_names_the_right_one(key, write):
    for choice in key.choices:
        slip = choice[1:]
        [line] = refused(write(yaml_of(key.path, slip)))
        assert line.endswith(f"must be one of {', '.join(key.choices)}; did you mean {choice}?")
        [line] = refused(None, {"SIDEGATE__" + "__".join(key.path).upper(): slip})
        assert line.endswith(f"; did you mean {choice}?")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server: {drain_s: 10s}", "server.drain_s: must be a number of seconds, without a unit"),
        ("limits: {json_body_bytes: 10MB}", "limits.json_body_bytes: must be a whole number of bytes, without a unit"),
        ("timeouts: {gap_s: '5'}", "timeouts.gap_s: must be a number without quotes"),
        ("limits: {connections: many}", "limits.connections: must be a whole number"),
        ("limits: {connections: 0}", "limits.connections: must be greater than 0"),
        ("limits: {connections: 4294967296}", "limits.connections: must be less than 2147483648"),
        ("timeouts: {gap_s: 86401}", "timeouts.gap_s: must be at most 86400"),
        ("journal: {max_bytes: 1}", "journal.max_bytes: must be at least 1048576"),
        ("server: {listen: {port: 70000}}", "server.listen.port: must be at most 65535"),
        ("data_dir: ''", "data_dir: must have at least 1 characters"),
        ("identity: {default_user: '" + "x" * 257 + "'}", "identity.default_user: must have at most 256 characters"),
        ("upstream: {name: A}", "upstream.name: must match ^[a-z0-9][a-z0-9_-]{0,62}$"),
        ("database: {url: 'mysql://h'}", "database.url: must begin with postgresql://"),
        ("upstream: {headers: {A: 1}}", "upstream.headers.A: must be text; put it in quotes"),
        ("prices: {overrides: {m: {input: -1}}}", "prices.overrides.m.input: must be at least 0"),
        ("prices: {overrides: {m: {input: x}}}", "prices.overrides.m.input: input should be a valid decimal"),
    ],
)
def test_load_of_a_value_out_of_range_says_the_range(text, expected, write):
    file = write(text)
    assert refused(file) == [f"{file}:1: {expected}"]


def test_load_of_a_misspelt_price_names_the_right_one_and_its_own_line(write):
    file = write("prices:\n  overrides:\n    gpt-5.1:\n      inptu: 3\n")
    [line] = refused(file)
    assert line.startswith(f"{file}:4: prices.overrides.gpt-5.1.inptu: is no price; known are input, ")
    assert line.endswith("; did you mean input?")


def test_load_of_many_mistakes_reports_all_of_them_in_order(write):
    file = write(
        "limits:\n  connections: -1\n  hedaers: 1\nserver:\n  drain_s: x\n  drain_s: 1\nupstream:\n  api_key: ${GONE}\n"
    )
    environ = {"SIDEGATE_LISTN": "x", "ENABLE_REQUEST_TRACING": "maybe", "UPSTREAM_BASE_URL": "ftp://h"}
    lines = refused(file, environ, {"--listen": "x"})
    places = [line.split(": ")[0].removeprefix(str(file)) for line in lines]
    assert places == [":2", ":3", ":5", ":6", ":8", "environment", "environment", "environment", "--listen"]


def test_load_of_a_broken_file_still_reports_the_other_sources(write):
    lines = refused(write("a: ["), {"SIDEGATE_LISTN": "x"}, {"--listen": "x"})
    assert len(lines) == 3


def test_load_of_every_layer_lets_the_rightmost_win_key_by_key(write):
    file = write("data_dir: f\nserver: {listen: {host: f, port: 1}, drain_s: 7}\n")
    loaded = load(file, {"SIDEGATE_LISTEN": "e:2", "SIDEGATE_DATA_DIR": "e"}, {"--data-dir": "c"})
    assert loaded.config.data_dir == "c"
    assert (loaded.config.server.listen.host, loaded.config.server.listen.port) == ("e", 2)
    assert loaded.config.server.drain_s == 7
    assert [
        str(loaded.origins[path]) for path in [("data_dir",), ("server", "listen", "port"), ("server", "drain_s")]
    ] == [
        "--data-dir",
        "environment SIDEGATE_LISTEN",
        f"{file}:2",
    ]


def test_load_of_a_partly_given_address_keeps_the_other_default(write):
    loaded = load(write("server: {listen: {host: h}}"), {}, {})
    assert (loaded.config.server.listen.host, loaded.config.server.listen.port) == ("h", 8080)


def test_load_with_a_file_named_by_the_environment_reads_it_and_a_given_path_wins(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"data_dir: {name}")
    environ = {"SIDEGATE_CONFIG": str(tmp_path / "one")}
    assert load(None, environ, {}).config.data_dir == "one"
    assert load(tmp_path / "two", environ, {}).config.data_dir == "two"
    environ = {"SIDEGATE_CONFIG": str(tmp_path / "gone")}
    assert refused(None, environ) == [f"{tmp_path / 'gone'}: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("environ", "demo"),
    [
        ({}, True),
        ({"OPENAI_API_KEY": ""}, True),
        ({"OPENAI_API_KEY": "sk-1"}, False),
        ({"UPSTREAM_BASE_URL": "http://h/v1"}, False),
        ({"UPSTREAM_BASE_URL": "https://api.openai.com/v1"}, False),
        ({"DATABASE_URL": "postgresql://h/d"}, True),
    ],
)
def test_load_without_key_and_base_url_asks_for_the_demo(environ, demo):
    assert load(None, environ, {}).demo is demo


def test_load_of_secret_references_fetches_them_from_each_layer(tmp_path, write):
    secret = tmp_path / "secret"
    secret.write_text("from-a-file-of-secrets\n")
    text = f"admin_key: file:{secret}\nupstream: {{api_key: '${{KEY}}', headers: {{X-A: '${{KEY}}', X-B: plain}}}}\n"
    loaded = load(write(text), {"KEY": "from-env"}, {})
    assert loaded.config.admin_key == SecretStr("from-a-file-of-secrets")
    assert loaded.config.upstream.api_key == SecretStr("from-env")
    assert loaded.config.upstream.headers == {"X-A": "from-env", "X-B": "plain"}
    assert loaded.warnings == ()
    assert load(None, {"OPENAI_API_KEY": f"file:{secret}"}, {}).config.upstream.api_key == SecretStr(
        "from-a-file-of-secrets"
    )


def test_load_of_references_that_lead_nowhere_names_key_and_target(tmp_path, write):
    file = write(f"admin_key: file:{tmp_path}/gone\nupstream:\n  api_key: ${{GONE}}\n  headers:\n    A: ${{GONE}}\n")
    assert refused(file) == [
        f"{file}:1: admin_key: refers to the file {tmp_path}/gone, which cannot be read: No such file or directory",
        f"{file}:3: upstream.api_key: refers to the environment variable GONE, which is not set",
        f"{file}:5: upstream.headers.A: refers to the environment variable GONE, which is not set",
    ]


def test_load_of_an_overruled_reference_does_not_need_its_target(write):
    loaded = load(write("upstream: {api_key: '${GONE}'}"), {"OPENAI_API_KEY": "sk-1"}, {})
    assert loaded.config.upstream.api_key == SecretStr("sk-1")


def test_load_of_a_literal_secret_in_a_file_warns_with_the_line_and_not_the_secret(write):
    file = write(f"database:\n  url: postgresql://u:{CANARY}@h/d\nupstream:\n  api_key: {CANARY}\n")
    texts = [str(warning) for warning in load(file, {}, {}).warnings]
    text = "the secret itself stands in the file; use ${NAME} or file:/path"
    assert texts == [f"{file}:2: database.url: {text}", f"{file}:4: upstream.api_key: {text}"]


def test_load_from_process_reads_the_environment_of_the_process(monkeypatch):
    monkeypatch.setenv("SIDEGATE_DATA_DIR", "from-process")
    assert load_from_process().config.data_dir == "from-process"
    assert load_from_process(None, {"--data-dir": "flag"}).config.data_dir == "flag"


SHAPES = st.sampled_from(
    [
        "{}",
        "'{}'",
        "[{}]",
        "{{a: {}}}",
        "*{}",
        "!x {}",
        "!{} x",
        "${{{}",
        "$({})",
        "{} {}",
        "'{}",
        "{}: {}",
        "@{}",
        "\t{}",
        "|\n {}\n{}",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KEYS)), SHAPES, st.booleans())
def test_load_of_a_secret_in_any_key_and_shape_never_quotes_it(tmp_path_factory, path, shape, unknown):
    file = tmp_path_factory.mktemp("c") / "c.yaml"
    name = (*path[:-1], "unknwn") if unknown else path
    file.write_text(yaml_of(name, shape.replace("{}", CANARY)) + "broken_key: 1\n")
    assert CANARY not in "\n".join(refused(file))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from(
        [
            "{}",
            " {} {}",
            "postgresql://u:{}@h:x{}",
            "http://{}@h",
            "http://h:{}/",
            "${{{}",
            "[{}",
            "{{a: {}",
            "{}\n",
            "{}é",
        ]
    ),
)
def test_load_of_a_secret_in_any_variable_never_quotes_it(path, shape):
    text = shape.replace("{{", "{").replace("{}", CANARY)
    environ = {"SIDEGATE__" + "__".join(path).upper(): text, "SIDEGATE_UNKNOWN": CANARY, "DATABSE_URL": CANARY}
    environ |= {"SIDEGATE_LISTEN": CANARY, "ENABLE_REQUEST_TRACING": CANARY}
    assert CANARY not in "\n".join(refused(None, environ, {"--listen": CANARY}))


def test_files_when_references_name_some_then_all_are_known_also_of_a_configuration_that_is_refused(tmp_path, write):
    secrets = {name: tmp_path / name for name in ("key", "admin", "header", "one", "two", "url")}
    for file in secrets.values():
        file.write_text("postgresql://h/d" if file.name == "url" else "sk-0123456789abcdef")
    text = (
        f"admin_key: file:{secrets['admin']}\n"
        f"upstream: {{headers: {{X-A: 'file:{secrets['header']}'}}}}\n"
        f"upstreams: [{{name: a, api_key: 'file:{secrets['one']}'}},"
        f" {{name: b, credentials: [{{api_key: 'file:{secrets['two']}'}}]}}]\n"
    )
    environ = {"OPENAI_API_KEY": f"file:{secrets['key']}", "DATABASE_URL": f"file:{secrets['url']}"}
    file = write(text)
    assert set(load(file, environ, {}).files) == {file, *secrets.values()}
    secrets["two"].unlink()
    with pytest.raises(ConfigError) as caught:
        load(file, environ, {})
    assert set(caught.value.files) == {file, *secrets.values()}
