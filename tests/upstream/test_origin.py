import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.origin import Origin, tls_context


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "authority"),
    [
        ("https://api.openai.com/v1", "api.openai.com", 443, True, "api.openai.com"),
        ("http://localhost:8081/v1", "localhost", 8081, False, "localhost:8081"),
        ("http://[::1]:80", "::1", 80, False, "[::1]:80"),
    ],
)
def test_origin_when_read_from_a_base_url_knows_where_to_connect(url, host, port, secure, authority):
    origin = Origin.of(url)
    assert (origin.host, origin.port, origin.secure, origin.authority) == (host, port, secure, authority)


@given(st.text(max_size=40))
def test_target_when_given_anything_is_the_rest_of_the_url_or_refused(rest):
    origin = Origin.of("https://api.example")
    clean = rest.startswith("/") and "#" not in rest and all("!" <= character <= "~" for character in rest)
    if clean:
        assert origin.target("https://api.example" + rest) == rest
    else:
        with pytest.raises(ValueError, match="clean URL"):
            origin.target("https://api.example" + rest)


def test_tls_context_when_the_file_is_missing_fails_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        tls_context(str(tmp_path / "none.pem"))
