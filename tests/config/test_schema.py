import pytest
from pydantic import SecretStr, ValidationError

from proxy.config.schema import PRICE_CLASSES, Config, Database, Prices, Upstream

SECRET = "zqSECRETzq"


@pytest.mark.parametrize(
    "url",
    """https://api.openai.com/v1 http://127.0.0.1:8081 http://[::1]:80/v1 https://host.example:8443/a/b/v1 http://localhost
    http://10.0.0.1 http://a.b.c1 https://xn--bcher-kva.example/v1 http://192.168.1.10:11434/v1""".split(),
)
def test_base_url_of_a_provider_is_accepted_as_it_is(url):
    assert Upstream(base_url=url).base_url == url


def test_base_url_with_a_slash_at_its_end_loses_it():
    assert Upstream(base_url="http://h/v1/").base_url == "http://h/v1"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://h",
        "http://",
        "http:///v1",
        "http://h:0",
        "http://h:99999",
        f"http://h:{SECRET}/",
        f"http://{SECRET}@h/",
        "http://@h/",
        f"http://u:{SECRET}@h/",
        f"http://h/?key={SECRET}",
        "http://h/?",
        f"http://h/#{SECRET}",
        "http://h/\n",
        "http://h /",
        "http://h\\@g/",
        "http://é.example/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://169.254.169.254/latest",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://224.0.0.1/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::1/",
    ],
)
def test_base_url_that_could_mislead_is_refused_without_quoting_it(url):
    with pytest.raises(ValidationError) as caught:
        Upstream(base_url=url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: y", "schlüssel", "a\0"])
def test_credentials_that_cannot_stand_in_a_header_are_refused(key):
    for build in (lambda: Upstream(api_key=SecretStr(key)), lambda: Config(admin_key=SecretStr(key))):
        with pytest.raises(ValidationError, match="visible ASCII"):
            build()


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection", "a b", "", "a:", "é"])
def test_upstream_headers_that_would_break_the_message_are_refused(name):
    with pytest.raises(ValidationError):
        Upstream(headers={name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb", "a\0", "é", "\x7f"])
def test_upstream_header_values_of_more_than_one_line_are_refused_without_quoting_them(value):
    with pytest.raises(ValidationError, match="one line of printable ASCII") as caught:
        Upstream(headers={"X-A": SECRET + value})
    assert SECRET not in str(caught.value)


def test_upstream_headers_of_providers_are_accepted():
    headers = {"OpenAI-Organization": "org-1", "api-key": "k", "X-Empty": ""}
    assert Upstream(headers=headers).headers == headers


@pytest.mark.parametrize("url", ["mysql://h/d", "h/d", "", f"https://{SECRET}"])
def test_database_url_of_another_kind_is_refused_without_quoting_it(url):
    with pytest.raises(ValidationError, match="postgresql://") as caught:
        Database(url=SecretStr(url))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", [f"postgresql://u:{SECRET}#x@h/d", f"postgres://u:{SECRET}/x@h:1/d"])
def test_database_url_with_a_password_that_is_not_encoded_is_refused_without_quoting_it(url):
    with pytest.raises(ValidationError, match="percent-encode") as caught:
        Database(url=SecretStr(url))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity", "1e999999"])
def test_prices_that_are_no_amount_are_refused(price):
    with pytest.raises(ValidationError):
        Prices(overrides={"m": {"input": price}})


def test_prices_of_every_class_are_accepted_and_others_refused():
    assert set(Prices(unknown_price=dict.fromkeys(PRICE_CLASSES, "1.5")).unknown_price) == set(PRICE_CLASSES)
    with pytest.raises(ValidationError, match="did you mean cached_input"):
        Prices(unknown_price={"cached_inputs": "1"})


def test_config_cannot_be_changed_and_shows_no_secret():
    config = Config(admin_key=SecretStr(SECRET), upstream=Upstream(api_key=SecretStr(SECRET)))
    with pytest.raises(ValidationError):
        config.data_dir = "x"
    assert SECRET not in repr(config)
    assert SECRET not in config.model_dump_json()
