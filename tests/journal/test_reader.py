"""Batches hold what a scanner finds, however the file is cut into batches and whatever is damaged in it."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.journal.frames import MAGIC, Kind, Scanner, encode
from proxy.journal.reader import read_segment
from proxy.journal.segment import CLOSED, Position, Segment

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""A busy machine is no failure."""
_FRAME = st.builds(
    encode,
    st.integers(0, 1 << 60),
    st.sampled_from(Kind),
    st.binary(min_size=16, max_size=16),
    st.text(max_size=40).map(str.encode),
)
_DAMAGE = st.sampled_from([MAGIC, bytes(40), b"\xf5TR1" + bytes(60), b'{"half":', b"\xff"])


def make_segment(path: Path, data: bytes) -> Segment:
    path.write_bytes(data)
    return Segment(1, path, len(data), CLOSED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000000000000001.journal"


@PATIENT
@given(st.lists(_FRAME | _DAMAGE, max_size=12), st.integers(1, 6), st.integers(1, 400))
def test_batches_when_put_together_then_they_hold_what_a_scanner_finds(
    path: Path, pieces: list[bytes], max_records: int, max_bytes: int
) -> None:
    data = b"".join(pieces)
    segment = make_segment(path, data)
    scanner = Scanner()
    expected = [r for r in [*scanner.feed(data), *scanner.finish()] if r.kind is not Kind.INTENT]

    found, frames, damaged, at = [], 0, 0, 0
    while at < segment.size:
        batch = read_segment(segment, at, max_records, max_bytes)
        assert batch.end > Position(1, at)
        assert len(batch.records) <= max_records
        assert len(batch.records) == 1 or sum(len(r.body) for r in batch.records) <= max_bytes
        found += batch.records
        frames += batch.damaged_frames
        damaged += batch.damaged_bytes
        at = batch.end.offset

    assert found == expected
    assert damaged == scanner.damaged_bytes
    assert frames >= scanner.damaged_frames


@pytest.mark.parametrize("body_bytes", [100, 10_000, 131_000, 300_000])
def test_run_when_longer_than_one_read_then_it_comes_in_as_few_batches_as_the_limits_allow(
    path: Path, body_bytes: int
) -> None:
    count = 3_000_000 // body_bytes
    frames = [encode(n, Kind.FINAL, n.to_bytes(16, "big"), b"x" * body_bytes) for n in range(count)]
    segment = make_segment(path, b"".join(frames))

    found, batches, at = [], 0, 0
    while at < segment.size:
        batch = read_segment(segment, at, 1_000_000, 1 << 20)
        found += batch.records
        batches += 1
        at = batch.end.offset

    assert [record.seq for record in found] == list(range(count))
    assert batches <= 5


def test_file_when_it_is_gone_then_all_of_it_is_one_damage(path: Path) -> None:
    segment = make_segment(path, b"x" * 100)
    path.unlink()

    batch = read_segment(segment, 30, 10, 1000)

    assert (batch.records, batch.end, batch.damaged_frames, batch.damaged_bytes) == ((), Position(1, 100), 1, 70)


def test_file_when_shorter_than_it_was_then_what_is_left_is_read_and_the_rest_passed(path: Path) -> None:
    frame = encode(0, Kind.FINAL, b"t" * 16, b"body")
    segment = make_segment(path, frame * 3)
    path.write_bytes(frame + frame[:10])

    first = read_segment(segment, 0, 10, 1000)
    rest = read_segment(segment, first.end.offset, 10, 1000)

    assert (len(first.records), rest.records, rest.end) == (1, [], segment.end)
    assert (rest.damaged_frames, rest.damaged_bytes) == (1, 10)
