import gc
import weakref

import pytest

from proxy.process.memory import (
    allow_full_collections,
    collect_rarely,
    limit_bytes,
    put_off_full_collections,
    resident_bytes,
    settle,
    tidy,
)


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.own = self


def test_tidy_when_something_holds_itself_then_it_goes() -> None:
    gc.disable()
    try:
        left = weakref.ref(Knot())
        assert left() is not None
        tidy()
        assert left() is None
    finally:
        gc.enable()


def test_settle_when_something_is_alive_then_no_later_collection_looks_at_it() -> None:
    gc.disable()
    try:
        alive = Knot()
        settle()
        assert gc.get_freeze_count() > 1000
        assert not any(each is alive for each in gc.get_objects())
    finally:
        gc.unfreeze()
        gc.enable()


@pytest.mark.parametrize(
    ("membership", "limit"),
    [
        ("0::/", 700),
        ("0::/pod/container", 300),
        ("0::/pod/elsewhere", 500),
        ("3:cpu:/x\n9:hugetlb,memory:/\n", 900),
        ("9:memory:/none", 900),
        ("3:cpu:/", None),
    ],
)
def test_limit_when_groups_are_nested_then_the_least_counts(tmp_path, membership, limit) -> None:
    told = {
        "memory.max": "700",
        "pod/memory.max": "500\n",
        "pod/container/memory.max": "300",
        "pod/elsewhere/memory.max": "max\n",
        "memory/memory.limit_in_bytes": "900",
        "memory/none/memory.limit_in_bytes": "9223372036854771712",
    }
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text(membership)
    assert limit_bytes(tmp_path, tmp_path / "self") == limit


def test_limit_when_the_system_has_no_groups_then_there_is_none(tmp_path) -> None:
    assert limit_bytes(tmp_path, tmp_path / "self") is None


def test_resident_when_asked_then_it_is_what_this_process_has() -> None:
    assert 10 << 20 < resident_bytes() < 10 << 30


def test_collections_when_they_run_rarely_then_none_of_the_young_looks_at_many_objects() -> None:
    before, was_on = gc.get_threshold(), gc.isenabled()
    try:
        collect_rarely()
        young, middle, _ = gc.get_threshold()
        assert young * (middle + 1) <= 15_000
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        if not was_on:
            gc.disable()


def test_full_collections_when_put_off_twice_then_both_have_to_end() -> None:
    before = gc.get_threshold()
    try:
        put_off_full_collections()
        put_off_full_collections()
        allow_full_collections()
        assert gc.get_threshold()[2] >= 1 << 30
        allow_full_collections()
        assert gc.get_threshold()[2] < 1 << 20
        assert gc.get_threshold()[:2] == before[:2]
    finally:
        gc.set_threshold(*before)
