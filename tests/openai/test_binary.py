"""What is no text is told by its bytes, whatever it is called."""

import base64

import pytest

from proxy.openai.binary import begins_as_binary, begins_as_text, encodes_text, is_base64, is_media, is_undecided

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256))).decode()
TEXT = base64.b64encode(b"STAGE=production\n" * 8).decode()
PDF = base64.b64encode(b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>" * 2).decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"data:image/png;base64,{PNG}", True),
        (f"data:application/pdf;base64,{PDF}", True),
        (f"data:;base64,{PNG}", True),
        (f"data:image/png;name={'x' * 100};base64,{PNG}\r\n{PNG}", True),
        (f"data:image/png;base64,{PNG} and a text", False),
        (f"data:image/png;base64,{PNG}\u2028", False),
        ("data:image/png;base64,\u00e9" + PNG, False),
        (f"data:image/png;base64,{TEXT}", False),
        (f"data:image/png;base64,{PNG[:60]}", False),
        (f"data:image/png,{PNG}", False),
        (f"data:{'x' * 300};base64,{PNG}", False),
        (f"see data:image/png;base64,{PNG}", False),
    ],
)
def test_data_url_when_it_is_base64_of_no_text_then_it_is_media(text: str, expected: bool) -> None:
    assert is_media(text) is expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"STAGE=production\nREGION=eu", True),
        ("Schlüssel: äöü".encode(), True),
        ("Schlüssel: äöü".encode("latin-1"), False),
        (b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog", False),
        (b"\0\1\2", False),
    ],
)
def test_base64_when_it_begins_like_text_then_it_encodes_text(data: bytes, expected: bool) -> None:
    assert encodes_text(base64.b64encode(data)) is expected
    assert encodes_text(base64.urlsafe_b64encode(data)) is expected


def test_base64_when_all_of_it_is_looked_at_then_the_last_character_counts() -> None:
    assert is_base64("QUJD\r\n" * 100_000)
    assert not is_base64("QUJD" * 200_000 + "!")
    assert not is_base64("QUJD\u00e9")
    assert is_base64("key QUJD", 4)


def test_file_when_it_begins_like_one_of_known_formats_then_it_is_binary() -> None:
    assert begins_as_binary(b"\0\0\0\x18ftypmp42")
    assert not begins_as_binary(b"key:ftypmp42")
    assert begins_as_binary(b"%PDF-1.4 plain so far")
    assert begins_as_binary(bytes(range(32)) * 16)
    assert begins_as_binary(b"RIFF\x24\x08\x00\x00WAVEfmt ")
    assert not begins_as_binary(b"a,b\r\n1,2")
    assert not begins_as_binary(b"RIFF is a format, as WAVE is")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True), (b"%", True), (b"%PDF-", False), (b"RIFF1234", True), (b"RIFF1234WAVE", False), (b"BZh9", True),
        (b"BZ2", False), (b"text", False),
    ],
)  # fmt: skip
def test_file_when_few_of_its_bytes_are_there_then_more_are_needed_only_if_they_may_be_a_signature(
    data: bytes, expected: bool
) -> None:
    assert is_undecided(data) is expected


def test_file_when_it_is_text_in_utf_8_then_it_begins_as_text() -> None:
    assert begins_as_text("Schl\u00fcssel".encode()[:6])
    assert not any(map(begins_as_text, (b"", b"\0", b"caf\xe9 au lait", b"GIF89a", b"\1" * 512)))
