import json
import threading

import pytest

from proxy.routing.listing import ListedReply, can_be_extended, extended
from tests.relay.peers import JSON, STREAM, Reply, announced, cuts

THEIRS = json.dumps({"object": "list", "data": [{"id": "a", "object": "model", "x": 1}, {"id": "b"}, 3]}).encode()


def every(_name: str) -> bool:
    return True


def test_list_when_extended_then_ours_come_first_and_theirs_stay_as_they_are():
    made = json.loads(extended(THEIRS, [("auto", "sidegate"), ("a", "main")], every))
    assert made["object"] == "list"
    assert made["data"] == [
        {"id": "auto", "object": "model", "created": 0, "owned_by": "sidegate"},
        {"id": "a", "object": "model", "x": 1},
        {"id": "b"},
        3,
    ]


def test_list_when_a_project_may_not_use_all_then_only_what_it_may():
    made = json.loads(extended(THEIRS, [("auto", "sidegate")], lambda name: name == "b"))
    assert [entry["id"] for entry in made["data"]] == ["auto", "b"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data":3}', b"{"])
def test_answer_that_is_no_list_stays_as_it_is(body):
    assert extended(body, [("auto", "sidegate")], every) == body


@pytest.mark.parametrize("size", [1, 5000])
async def test_reply_when_read_then_the_list_comes_whole_without_its_old_length(size):
    inner = Reply(cuts(THEIRS, range(0, len(THEIRS), size)), (JSON, announced(THEIRS)))
    reply = ListedReply(inner, [("auto", "sidegate")], every)
    assert list(reply.headers) == [JSON]
    assert not reply.complete
    assert await reply.read() == extended(THEIRS, [("auto", "sidegate")], every)
    assert await reply.read() == b""
    reply.close()
    assert inner.closed


async def test_reply_when_large_then_it_is_read_in_a_thread():
    threads = set()

    def noted(name):
        threads.add(threading.get_ident())
        return name != "m1"

    large = json.dumps({"object": "list", "data": [{"id": f"m{n}"} for n in range(9000)]}).encode()
    reply = ListedReply(Reply([large], (JSON,)), [("auto", "sidegate")], noted)
    made = json.loads(await reply.read())
    assert [entry["id"] for entry in made["data"]] == ["auto", "m0", *(f"m{n}" for n in range(2, 9000))]
    assert threads and threading.get_ident() not in threads


async def test_reply_when_too_large_then_it_passes_as_it_is():
    big = b"x" * 3_000_000
    reply = ListedReply(Reply([big, big, big], (JSON,)), [], every)
    size = 0
    while piece := await reply.read():
        size += len(piece)
    assert size == 9_000_000


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [((JSON,), 200, True), ((JSON,), 500, False), ((STREAM,), 200, False),
     ((JSON, (b"Content-Encoding", b"gzip")), 200, False), ((JSON, (b"Content-Encoding", b"none")), 200, True)],
)  # fmt: skip
def test_reply_that_cannot_be_read_is_not_extended(headers, status, expected):
    assert can_be_extended(Reply([], headers, status=status)) is expected
