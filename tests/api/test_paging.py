"""Pages of lists: what is shown, and where the next one begins."""

import orjson
import pytest
from aiohttp import web

from proxy.api.paging import page_of


@pytest.mark.parametrize(
    ("rows", "shown", "cursor"),
    [
        ([], [], None),
        (["a"], ["a"], None),
        (["a", "b"], ["a", "b"], None),
        (["a", "b", "c"], ["a", "b"], "after b"),
    ],
    ids=["none", "less than a page", "one whole page", "more than a page"],
)
def test_page_when_its_rows_are_read_names_the_next_only_if_there_is_one(
    rows: list[str], shown: list[str], cursor: str | None
) -> None:
    response = page_of("names", rows, 2, document=lambda row: {"name": row}, cursor=lambda row: f"after {row}")

    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body) == {"names": [{"name": name} for name in shown], "nextCursor": cursor}
