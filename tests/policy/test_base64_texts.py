"""What is encoded in base64 is found and put together, however it is broken into lines."""

import base64
import time

import pytest

from proxy.policy import base64_texts
from proxy.policy.base64_texts import Encoded

TEXT = "STAGE=production\nREGION=eu-west-1\nTOKEN=some that would stand across two lines\n"


def encoded(text: str, most: int = 10_000) -> list[Encoded]:
    return [*base64_texts.encoded(text, most)]


def lines(size: int, between: str, text: bytes = TEXT.encode()) -> str:
    run = base64.b64encode(text).decode()
    return between.join(run[at : at + size] for at in range(0, len(run), size))


@pytest.mark.parametrize("between", ["\n", "\r\n", "\\n", "\\r\\n", "\n    ", "\n\t"], ids=repr)
@pytest.mark.parametrize("size", [40, 64, 76, 1000])
def test_text_when_it_is_in_lines_then_it_is_one(size: int, between: str) -> None:
    run = lines(size, between)
    for before in ("see ", "see\\n", "\\t", "\\", ""):
        (found,) = encoded(before + run)
        assert found == Encoded(len(before), len(before) + len(run.rstrip("=")), TEXT)


@pytest.mark.parametrize(
    "text",
    ["", "prose only", "x" * 39, base64.b64encode(bytes(range(256))).decode(), lines(20, "\n")],
    ids=["nothing", "prose", "short", "binary", "short lines"],
)
def test_text_when_nothing_is_encoded_then_nothing_is_found(text: str) -> None:
    assert encoded(text) == []


def test_text_when_lines_are_of_different_lengths_then_each_is_one() -> None:
    first, second = lines(1000, "", b"a" * 41), lines(1000, "", b"b" * 33)
    assert [found.text for found in encoded(f"{first}\n{second}")] == ["a" * 41, "b" * 33]
    longer = lines(1000, "", b"c" * 60)
    assert [found.text for found in encoded(f"{second}\n{longer}")] == ["b" * 33, "c" * 60]


def test_text_when_it_is_utf_16_or_url_safe_or_not_whole_then_it_is_read() -> None:
    (found,) = encoded(base64.b64encode(TEXT.encode("utf-16-le")).decode())
    assert found.text == TEXT
    url_safe = base64.urlsafe_b64encode(b"~~~???>>> and more of that, some more").decode()
    assert "_" in url_safe or "-" in url_safe
    (found,) = encoded(url_safe)
    assert found.text == "~~~???>>> and more of that, some more"
    (found,) = encoded(lines(1000, "")[:41])
    assert found.text == TEXT[:30]


def test_text_when_there_is_more_than_may_be_decoded_then_its_beginning_is() -> None:
    first, second = lines(1000, "", b"a" * 60), lines(1000, "", b"b" * 60)
    assert [found.text for found in encoded(f"{first} {second}", 100)] == ["a" * 60, "b" * 15]
    assert [found.text for found in encoded(f"{first} {second} {first}", 80)] == ["a" * 60, ""]
    assert encoded(first, -1) == []
    (found,) = encoded(f"{first}{second}", 60)
    assert (found.text, 60 < found.end < 160) == ("a" * 45, True)


@pytest.mark.parametrize("around", range(-50, 50))
def test_text_when_it_stands_where_the_text_is_searched_in_pieces_then_it_is_found_whole(around: int) -> None:
    run = lines(64, "\n")
    before = "prose " * ((base64_texts._PIECE + around) // 6)
    before += "." * (base64_texts._PIECE + around - len(before))
    assert encoded(f"{before} {run}") == [Encoded(len(before) + 1, len(before) + 1 + len(run.rstrip("=")), TEXT)]


@pytest.mark.parametrize("text", ["QUFB" * 1_000_000, ("x" * 39 + " ") * 100_000], ids=["one run", "almost runs"])
def test_text_when_it_is_large_then_no_letter_is_read_again_and_again(text: str) -> None:
    def cost() -> float:
        begun = time.process_time()
        encoded(text)
        return time.process_time() - begun

    assert min(cost() for _ in range(3)) < 0.1
