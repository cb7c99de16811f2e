from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.environment import CONFIG_VARIABLE, FLAGS, VARIABLES, read_environment, read_flags, split_address
from proxy.config.keys import KEYS

LONG_NAMES = {"SIDEGATE__" + "__".join(path).upper(): path for path in KEYS}


def values(environ: dict[str, str]) -> dict[str, object]:
    layer = read_environment(environ)
    assert [str(problem) for problem in layer.problems] == []
    return {".".join(path): setting.value for path, setting in layer.settings.items()}


def problems(environ: dict[str, str]) -> list[str]:
    return [str(problem) for problem in read_environment(environ).problems]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SIDEGATE_LISTEN", "0.0.0.0:8080", {"server.listen.host": "0.0.0.0", "server.listen.port": 8080}),
        ("SIDEGATE_LISTEN", " [::1]:0 ", {"server.listen.host": "::1", "server.listen.port": 0}),
        ("SIDEGATE_OPS_LISTEN", "localhost:1", {"server.ops_listen.host": "localhost", "server.ops_listen.port": 1}),
        ("SIDEGATE_DATA_DIR", "/data", {"data_dir": "/data"}),
        ("SIDEGATE_ADMIN_KEY", "k", {"admin_key": "k"}),
        ("DATABASE_URL", "postgresql://h/d", {"database.url": "postgresql://h/d"}),
        ("UPSTREAM_BASE_URL", "http://h/v1", {"upstream.base_url": "http://h/v1"}),
        ("OPENAI_API_KEY", "sk-1\n", {"upstream.api_key": "sk-1"}),
        ("ENABLE_REQUEST_TRACING", "Off", {"tracing.enabled": False}),
        ("SIDEGATE_CONFIG", "/etc/sidegate.yaml", {}),
        ("SIDEGATE__TIMEOUTS__GAP_S", "0.5", {"timeouts.gap_s": Decimal("0.5")}),
        ("SIDEGATE__SERVER__LISTEN__PORT", "81", {"server.listen.port": 81}),
        ("SIDEGATE__IDENTITY__DEFAULT_USER", "1234", {"identity.default_user": "1234"}),
        ("SIDEGATE__ADMIN_KEY", "true", {"admin_key": "true"}),
        ("SIDEGATE__TRACING__CONTENT", "off", {"tracing.content": "off"}),
        ("SIDEGATE__SERVER__UVLOOP", "no", {"server.uvloop": False}),
        ("SIDEGATE__UPSTREAM__HEADERS", '{"A": "b"}', {"upstream.headers": {"A": "b"}}),
    ],
)
def test_read_environment_of_each_known_name_sets_its_key(name, text, expected):
    assert values({name: text}) == expected


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", "On", "false", "0", "no", "off"])
def test_read_environment_of_boolean_words_understands_them(word):
    assert values({"ENABLE_REQUEST_TRACING": word}) == {"tracing.enabled": word.lower() in ("true", "1", "yes", "on")}


@pytest.mark.parametrize("name", sorted({*VARIABLES, *LONG_NAMES}))
def test_read_environment_of_an_empty_value_is_not_set(name):
    assert values({name: "", "SIDEGATE_CONFIG": " "}) == {}


def test_read_environment_of_both_names_of_a_key_prefers_the_short_one():
    environ = {"SIDEGATE__DATA_DIR": "long", "SIDEGATE_DATA_DIR": "short"}
    assert values(environ) == {"data_dir": "short"}
    assert values({**environ, "SIDEGATE_DATA_DIR": ""}) == {"data_dir": "long"}


@pytest.mark.parametrize(
    "name",
    """OPENAI_BASE_URL OPENAI_API_KEY_2 OPENAI_API_KEY2 OPENAI_API_KEYS OPENAI_API_BASE OPENAI_ORG_ID OPENAI_API_TYPE
    AZURE_OPENAI_API_KEY MY_OPENAI_API_KEY DATABASE_URL_TEST TEST_DATABASE_URL DATABASE_URLS DATABASE_HOST DATABASE_USER
    PG_DATABASE_URL PGHOST HTTP_PROXY ENABLE_TRACING UPSTREAM_URL PATH HOME SIDECAR_LISTEN
    ENABLE_SCANNING REDACT_LOGS ANTHROPIC_API_KEY""".split(),
)
def test_read_environment_of_other_programs_names_leaves_them_alone(name):
    assert values({name: "x"}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("SIDEGATE_SERVICE_PORT", "8080"),
        ("SIDEGATE_SERVICE_PORT_HTTP", "8080"),
        ("SIDEGATE_PORT", "tcp://10.0.0.1:8080"),
        ("SIDEGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("SIDEGATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("SIDEGATE_HUB_SERVICE_HOST", "10.0.0.1"),
        ("SIDEGATE_HUB_PORT", "tcp://10.0.0.1:8080"),
        ("SIDEGATE_HUB_PORT_8080_TCP_PROTO", "tcp"),
    ],
)
def test_read_environment_of_kubernetes_service_links_leaves_them_alone(name, value):
    assert values({name: value}) == {}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SIDEGATE_LISTN": "x"}, "environment: SIDEGATE_LISTN: unknown setting; did you mean SIDEGATE_LISTEN?"),
        ({"sidegate_listen": "x"}, "environment: sidegate_listen: unknown setting; did you mean SIDEGATE_LISTEN?"),
        (
            {"SIDEGATE_PORT": "80"},
            "environment: SIDEGATE_PORT: unknown setting; did you mean SIDEGATE__SERVER__LISTEN__PORT or "
            "SIDEGATE__SERVER__OPS_LISTEN__PORT?",
        ),
        ({"SIDEGATE_QQQQQQQ": "x"}, "environment: SIDEGATE_QQQQQQQ: unknown setting"),
        (
            {"SIDEGATE_SERVER_DRAIN_S": "1"},
            "environment: SIDEGATE_SERVER_DRAIN_S: unknown setting; did you mean SIDEGATE__SERVER__DRAIN_S?",
        ),
        (
            {"SIDEGATE__SERVER__LISTEN": "x"},
            "environment: SIDEGATE__SERVER__LISTEN: is a section; set one of its keys, "
            "for example SIDEGATE__SERVER__LISTEN__HOST, or SIDEGATE_LISTEN",
        ),
        (
            {"SIDEGATE__SERVER__UVLOOP": "tru"},
            "environment: SIDEGATE__SERVER__UVLOOP: must be one of true, 1, yes, on, false, 0, no, off; "
            "did you mean true?",
        ),
        (
            {"DATABSE_URL": "x"},
            "environment: DATABSE_URL: is not read; did you mean DATABASE_URL? "
            "If it is another program's, set DATABASE_URL too, even empty",
        ),
    ],
)
def test_read_environment_of_a_mistake_names_the_right_name(environ, expected):
    [problem] = problems(environ)
    assert problem.startswith(expected)


@pytest.mark.parametrize("name", [name for name in VARIABLES if not name.startswith(("SIDEGATE_", "OTEL_"))])
def test_read_environment_of_every_slip_of_a_bare_name_suggests_it(name):
    for i in range(len(name)):
        for slip in (name[:i] + name[i + 1 :], name[:i] + "J" + name[i + 1 :], name[:i] + "J" + name[i:], name.lower()):
            [problem] = problems({slip: "x"})
            assert f"did you mean {name}?" in problem, slip
            assert problems({slip: "x", name: ""}) == []


@pytest.mark.parametrize("name", [CONFIG_VARIABLE, *(name for name in VARIABLES if name.startswith("SIDEGATE_"))])
def test_read_environment_of_every_slip_of_an_own_name_suggests_it(name):
    start = len("SIDEGATE_")
    for i in range(start, len(name)):
        for slip in (name[:i] + name[i + 1 :], name[:i] + "J" + name[i + 1 :]):
            [problem] = problems({slip: "x"})
            assert problem == f"environment: {slip}: unknown setting; did you mean {name}?"


@pytest.mark.parametrize("name", sorted(LONG_NAMES))
def test_read_environment_of_a_slip_of_a_long_name_suggests_it(name):
    slip = name[:-2] + name[-1] + name[-2] if name[-1] != name[-2] else name[:-1]
    assert problems({slip: "1"}) == [f"environment: {slip}: unknown setting; did you mean {name}?"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SIDEGATE__SERVER__PORT", "SIDEGATE__SERVER__LISTEN__PORT or SIDEGATE__SERVER__OPS_LISTEN__PORT"),
        ("SIDEGATE__UPSTREAM__URL", "SIDEGATE__UPSTREAM__BASE_URL"),
        ("SIDEGATE__UPSTREAM__TOKEN", "SIDEGATE__UPSTREAM__API_KEY"),
        ("SIDEGATE__DATABASE__DSN", "SIDEGATE__DATABASE__URL"),
        ("SIDEGATE__DATABASE__POOL", "SIDEGATE__DATABASE__POOL_SIZE"),
        ("SIDEGATE__ROUTING__LAYERS", "SIDEGATE__ROUTING__LAYERS_FILE"),
        ("SIDEGATE__SEVRER__LISTEN__PROT", "SIDEGATE__SERVER__LISTEN__PORT"),
        ("SIDEGATE__TIMEOUT__CONNECT", "SIDEGATE__TIMEOUTS__CONNECT_S"),
        ("SIDEGATE__TIMEOUT", "SIDEGATE__TIMEOUTS__..."),
        ("SIDEGATE__SERVER__ADDRESS", "SIDEGATE_LISTEN"),
        ("SIDEGATE__UPSTREAM__HEADERS__X", "SIDEGATE__UPSTREAM__HEADERS"),
        ("SIDEGATE_LOG_LEVEL", "SIDEGATE__LOGGING__LEVEL"),
        ("SIDEGATE_OPENAI_API_KEY", "OPENAI_API_KEY"),
    ],
)
def test_read_environment_of_what_others_call_it_names_the_key_of_that_section(name, meant):
    assert problems({name: "1"}) == [f"environment: {name}: unknown setting; did you mean {meant}?"]


@pytest.mark.parametrize("name", ["SIDEGATE_", "SIDEGATE__", "SIDEGATE__A__B__C__D__E", "SIDEGATE__SERVER__WORKERS"])
def test_read_environment_of_what_is_like_nothing_makes_no_guess(name):
    assert problems({name: "1"}) == [f"environment: {name}: unknown setting"]


def test_read_flags_of_each_flag_sets_its_key():
    given = {"--listen": "h:1", "--ops-listen": "[::]:2", "--data-dir": "d", "--reuse-port": "true"}
    layer = read_flags(given)
    found = {".".join(path): setting.value for path, setting in layer.settings.items()}
    assert found == {
        "server.listen.host": "h",
        "server.listen.port": 1,
        "server.ops_listen.host": "::",
        "server.ops_listen.port": 2,
        "data_dir": "d",
        "server.reuse_port": True,
    }
    assert {setting.origin.name for setting in layer.settings.values()} == set(FLAGS)


@pytest.mark.parametrize(
    "text",
    ["", "8080", ":8080", "::1:8080", "[::1]", "[::1:80", "::1]:80", "[h]:80", "h:", "h:80a", "h:65536", "h:-1", "h:٣"],
)
def test_split_address_of_something_else_is_refused_without_quoting_it(text):
    with pytest.raises(ValueError, match=r"^(must be host:port, for example|the port must be a number)") as caught:
        split_address(text)
    assert [str(problem) for problem in read_flags({"--listen": text}).problems] == [f"--listen: {caught.value}"]


@given(st.sampled_from(["h", "127.0.0.1", "a.b", "::1", "fe80::1"]), st.integers(0, 65_535))
def test_split_address_of_every_address_gives_its_parts(host, port):
    text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert split_address(text) == (host, port)


@given(st.dictionaries(st.text("SIDEGATE_DATABASE_URL", min_size=1, max_size=24), st.text(max_size=8), max_size=3))
def test_read_environment_of_anything_never_raises(environ):
    read_environment(environ)


def test_read_environment_of_opentelemetry_understands_its_own_notation():
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, x-scope = c=d",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,team=a%2Cb,",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    assert values(environ) == {
        "otel.endpoint": "http://collector:4318",
        "otel.headers": {"api-key": "a b", "x-scope": "c=d"},
        "otel.resource_attributes": {"deployment.environment.name": "prod", "team": "a,b"},
        "otel.sampler": "traceidratio",
        "otel.sampler_arg": Decimal("0.25"),
    }


def test_read_environment_of_opentelemetry_leaves_alone_what_is_set_for_all_programs():
    names = ("OTEL_PROPAGATORS", "OTEL_SERVICE_NAM", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_METRICS_EXPORTER")
    assert values(dict.fromkeys(names, "grpc")) == {}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_HEADERS": "a"}, "environment: OTEL_EXPORTER_OTLP_HEADERS: must be key=value"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "=a"}, "environment: OTEL_RESOURCE_ATTRIBUTES: must be key=value"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "environment: OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is spoken here",
        ),
    ],
)
def test_read_environment_of_opentelemetry_names_mistakes(environ, expected):
    [problem] = problems(environ)
    assert problem.startswith(expected)
