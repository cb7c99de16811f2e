import pytest

from proxy.api.lazy import FIRST_SEGMENTS, LazyApi, may_be_ours
from proxy.api.routes import Api, Stores


def test_first_segments_when_compared_then_they_are_those_of_the_table():
    class Anything:
        def __getattr__(self, name):
            return Anything()

        def __call__(self, *_arguments, **_named):
            return None

    stores = Stores(*[Anything() for _ in Stores.__slots__])
    table = Api(stores, Anything(), b"").table
    assert {row.path.split("/")[2] for row in table} == FIRST_SEGMENTS


@pytest.mark.parametrize(
    ("target", "ours"),
    [
        ("/v1/traces", True),
        ("/v1/traces?limit=1", True),
        ("/v1/sidegate/keys/x/rotate", True),
        ("/ui/", True),
        ("/v1/tracesx", False),
        ("/v1/models", False),
        ("/v2/traces", False),
        ("/traces", False),
        ("/", False),
    ],
)
def test_target_when_judged_then_its_first_segment_decides(target, ours):
    assert may_be_ours(target) is ours


_made: list[object] = []


class Made:
    def __init__(self, parts):
        _made.append(parts)

    def match(self, method, path):
        return (method, path)

    async def handle(self, request, route):
        return request, route


async def test_api_when_no_path_of_it_is_asked_for_then_it_is_not_made():
    _made.clear()
    api = LazyApi("parts", f"{__name__}:Made")
    assert api.match("GET", "/v1/models") is None
    assert _made == []
    for _ in range(2):
        assert api.match("GET", "/v1/traces") == ("GET", "/v1/traces")
    assert _made == ["parts"]
    assert await api.handle("request", "route") == ("request", "route")
