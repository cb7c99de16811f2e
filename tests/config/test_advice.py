import pytest

from proxy.config.advice import is_loopback
from proxy.config.load import load


def warnings(environ: dict[str, str]) -> list[str]:
    return [str(warning) for warning in load(None, environ, {}).warnings]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"SIDEGATE_LISTEN": "0.0.0.0:80"},
            "environment: SIDEGATE_LISTEN: is not a loopback address: "
            "everybody who can reach it may use the provider's key",
        ),
        (
            {"UPSTREAM_BASE_URL": "http://h.example/v1", "OPENAI_API_KEY": "sk-1"},
            "environment: UPSTREAM_BASE_URL: is http: prompts and the provider's key cross the network in clear text",
        ),
        (
            {"SIDEGATE_ADMIN_KEY": "short"},
            "environment: SIDEGATE_ADMIN_KEY: is shorter than 16 characters and can be guessed",
        ),
        (
            {"SIDEGATE_OPS_LISTEN": "127.0.0.1:8080"},
            "environment: SIDEGATE_OPS_LISTEN: is the same address as server.listen; only one can be bound",
        ),
        (
            {"SIDEGATE__LIMITS__BUFFERED_BYTES": "1000"},
            "environment: SIDEGATE__LIMITS__BUFFERED_BYTES: is below json_body_bytes: "
            "a body of the largest size never fits",
        ),
        (
            {"SIDEGATE__JOURNAL__MAX_BYTES": "17000000"},
            "environment: SIDEGATE__JOURNAL__MAX_BYTES: holds less than two segments: "
            "space is only given back segment by segment",
        ),
        (
            {"SIDEGATE__TIMEOUTS__TOTAL_S": "5"},
            "environment: SIDEGATE__TIMEOUTS__TOTAL_S: is below first_byte_s, which therefore never takes effect",
        ),
        (
            {"SIDEGATE__PRICES__FILE": "/gone.yaml"},
            "environment: SIDEGATE__PRICES__FILE: names a file that does not exist on this machine",
        ),
        (
            {"SIDEGATE__CLIENT__CA_FILE": "/gone.pem"},
            "environment: SIDEGATE__CLIENT__CA_FILE: names a file that does not exist on this machine",
        ),
    ],
)
def test_advise_for_each_doubtful_setting_says_so_once(environ, expected):
    assert warnings(environ) == [expected]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SIDEGATE_LISTEN": "[::1]:80"},
        {"SIDEGATE_LISTEN": "localhost:80"},
        {"UPSTREAM_BASE_URL": "http://h.example/v1"},
        {"UPSTREAM_BASE_URL": "http://127.0.0.1:11434/v1", "OPENAI_API_KEY": "sk-1"},
        {"SIDEGATE_LISTEN": "127.0.0.1:0", "SIDEGATE_OPS_LISTEN": "127.0.0.1:0"},
        {"SIDEGATE_ADMIN_KEY": "a-key-of-some-length"},
    ],
)
def test_advise_for_sound_settings_is_silent(environ):
    assert warnings(environ) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("h", False),
    ],
)
def test_is_loopback_of_each_kind_of_address(host, expected):
    assert is_loopback(host) is expected
