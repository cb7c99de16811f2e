"""Names of members that could be secrets."""

import pytest

from proxy.openai.member_names import SHORTEST, telling


@pytest.mark.parametrize(
    ("name", "is_telling"),
    [
        ("completion_tokens_details", False),
        ("A" * SHORTEST, True),
        ("A" * (SHORTEST - 1), False),
        ("ghp_" + "a1" * 18, True),
        ("words and more words than one", True),
    ],
)
def test_name_when_it_is_long_and_more_than_words_then_it_is_scanned(name: str, is_telling: bool) -> None:
    assert telling({name: 1, "id": 2}) == [name] * is_telling
