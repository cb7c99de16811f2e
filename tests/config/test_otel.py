import pytest
from pydantic import ValidationError

from proxy.config.otel import Otel


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, None),
        ({"endpoint": "http://h:4318"}, "http://h:4318/v1/traces"),
        ({"endpoint": "https://h/otlp/"}, "https://h/otlp/v1/traces"),
        ({"traces_endpoint": "http://h/spans"}, "http://h/spans"),
        ({"endpoint": "http://a", "traces_endpoint": "http://b/x"}, "http://b/x"),
    ],
)
def test_url_when_endpoints_are_named_then_as_the_specification_puts_it_together(settings, url):
    assert Otel(**settings).url == url


@pytest.mark.parametrize(
    "url", ["h:4318", "ftp://h", "http://", "http://u:p@h", "http://h?a=b", "http://h:0", "http://h:x"]
)
def test_endpoint_when_it_is_no_plain_url_then_refused(url):
    with pytest.raises(ValidationError):
        Otel(endpoint=url)
