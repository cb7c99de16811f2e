import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.references import BadReference, is_reference, resolve


def test_resolve_of_a_variable_returns_its_stripped_value():
    assert resolve("${KEY}", {"KEY": " sk-1\n"}) == "sk-1"
    assert resolve("  ${KEY} ", {"KEY": "sk-1"}) == "sk-1"


def test_resolve_of_a_file_returns_its_stripped_content_each_time_anew(tmp_path):
    file = tmp_path / "key"
    for secret in ("sk-1", "sk-2"):
        file.write_text(f"{secret}\n")
        assert resolve(f"file:{file}", {}) == secret


@pytest.mark.parametrize("value", ["sk-1", "pa$$word", "a$b", "$", "100$", "$lower", "a$(b"])
def test_resolve_of_a_plain_secret_returns_it(value):
    assert resolve(value, {}) == value
    assert not is_reference(value)


@pytest.mark.parametrize("value", ["$KEY", "${KEY", "${KEY}x", "a${KEY}", "x${", "${}", "${1}", "$(KEY)", "u:$(PW)@h"])
def test_resolve_of_something_like_a_reference_is_refused_without_quoting_it(value):
    with pytest.raises(BadReference, match="looks like a reference but is none") as caught:
        resolve(value, {"KEY": "sk-1"})
    assert value not in str(caught.value)


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}, {"KEY": " \n"}])
def test_resolve_of_a_variable_that_is_not_set_names_it(environ):
    with pytest.raises(BadReference, match="refers to the environment variable KEY, which is not set"):
        resolve("${KEY}", environ)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff", "is not UTF-8")],
)
def test_resolve_of_an_unusable_file_names_it(tmp_path, content, text):
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadReference, match=text) as caught:
        resolve(f"file:{file}", {})
    assert str(file) in str(caught.value)


def test_resolve_of_an_endless_file_stops_reading(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(b"")
    os.truncate(file, 1 << 40)
    with pytest.raises(BadReference, match="is larger than 65536 bytes"):
        resolve(f"file:{file}", {})


@pytest.mark.parametrize("value", ["file:", "file:key", "file:./key", "file:/a\0b", "file:/a\nb"])
def test_resolve_of_a_relative_or_unprintable_file_is_refused(value):
    with pytest.raises(BadReference, match=r"relative path|cannot be printed"):
        resolve(value, {})


def test_is_reference_tells_pointers_from_secrets():
    assert is_reference("${A_1}")
    assert is_reference("file:/x")
    assert not is_reference("$A")


@given(st.text("ab${}()_ ", max_size=12))
def test_resolve_of_anything_returns_it_or_the_variable_or_refuses(value):
    try:
        found = resolve(value, {"a": "SECRET"})
    except BadReference as error:
        assert "SECRET" not in str(error)
    else:
        assert found == ("SECRET" if value.strip() == "${a}" else value.strip())
