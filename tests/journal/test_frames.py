"""The scanner finds every whole record and nothing else, however the bytes are cut or damaged."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.journal.frames import FRAME_OVERHEAD, MAGIC, MAX_BODY_BYTES, Kind, Record, Scanner, encode, scan_intact

_RECORDS = st.lists(
    st.tuples(st.sampled_from(Kind), st.binary(min_size=16, max_size=16), st.text(max_size=40).map(str.encode)),
    min_size=1,
    max_size=8,
)
PATIENT = settings(deadline=None)
"""A busy machine is no failure."""
Plain = tuple[Kind, bytes, bytes]


def _encode(records: Iterable[Plain]) -> list[bytes]:
    return [encode(seq, *record) for seq, record in enumerate(records)]


def _scan(data: bytes, step: int | None = None) -> tuple[list[Record], Scanner]:
    scanner = Scanner()
    found: list[Record] = []
    for at in range(0, len(data), step or max(len(data), 1)):
        found += scanner.feed(data[at : at + step] if step else data)
    found += scanner.finish()
    return found, scanner


def _plain(found: Iterable[Record]) -> list[Plain]:
    return [(record.kind, record.trace_id, record.body) for record in found]


def _is_subsequence(part: list[Plain], whole: list[Plain]) -> bool:
    rest = iter(whole)
    return all(record in rest for record in part)


@PATIENT
@given(_RECORDS, st.integers(1, 60))
def test_records_when_fed_in_pieces_of_any_size_then_all_are_found(records: list[Plain], step: int) -> None:
    frames = _encode(records)

    found, scanner = _scan(b"".join(frames), step)

    assert _plain(found) == records
    assert [record.seq for record in found] == list(range(len(records)))
    assert found[-1].end_offset == sum(map(len, frames))
    assert (scanner.damaged_frames, scanner.damaged_bytes) == (0, 0)


def test_file_when_truncated_at_every_offset_then_only_the_cut_frame_is_lost() -> None:
    records = [(Kind.INTENT, b"a" * 16, b"{}"), (Kind.FINAL, b"a" * 16, b'{"x":1}'), (Kind.CONTENT, b"b" * 16, b"")]
    frames = _encode(records)
    data = b"".join(frames)
    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    for cut in range(len(data) + 1):
        found, scanner = _scan(data[:cut])
        whole = sum(end <= cut for end in ends)
        assert _plain(found) == records[:whole]
        assert scanner.damaged_bytes == cut - ([0, *ends][whole])
        assert scanner.damaged_frames == (scanner.damaged_bytes > 0)


@PATIENT
@given(_RECORDS, st.data())
def test_file_when_bits_are_flipped_then_the_other_frames_are_found(records: list[Plain], data: st.DataObject) -> None:
    frames = _encode(records)
    hit = data.draw(st.integers(0, len(frames) - 1))
    broken = bytearray(frames[hit])
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    frames[hit] = bytes(broken)

    found, scanner = _scan(b"".join(frames), data.draw(st.sampled_from([None, 7, 64])))

    assert _plain(found) == records[:hit] + records[hit + 1 :]
    assert (scanner.damaged_frames, scanner.damaged_bytes) == (1, len(broken))


@PATIENT
@given(_RECORDS, st.integers(1, 5000))
def test_file_when_it_ends_in_zeros_then_they_are_one_damage(records: list[Plain], zeros: int) -> None:
    found, scanner = _scan(b"".join(_encode(records)) + bytes(zeros))

    assert _plain(found) == records
    assert (scanner.damaged_frames, scanner.damaged_bytes) == (1, zeros)


@PATIENT
@given(_RECORDS, st.lists(st.integers(0, 7), max_size=12))
def test_file_when_frames_are_swapped_or_repeated_then_each_is_read_where_it_stands(
    records: list[Plain], order: list[int]
) -> None:
    frames = _encode(records)
    picked = [i % len(frames) for i in order]

    found, scanner = _scan(b"".join(frames[i] for i in picked))

    assert _plain(found) == [records[i] for i in picked]
    assert scanner.damaged_bytes == 0


@PATIENT
@given(_RECORDS, st.data())
def test_file_when_a_piece_is_overwritten_then_nothing_is_invented(records: list[Plain], data: st.DataObject) -> None:
    whole = b"".join(_encode(records))
    at = data.draw(st.integers(0, len(whole)))
    garbage = data.draw(
        st.lists(st.sampled_from([MAGIC, b"\xf5", b"\0" * 9, b"TR1", b"\xff" * 4]), max_size=9).map(b"".join)
    )
    damaged = whole[:at] + garbage + whole[at + len(garbage) :]

    found, scanner = _scan(damaged, data.draw(st.sampled_from([None, 5])))

    assert _is_subsequence(_plain(found), records)
    good = sum(FRAME_OVERHEAD + len(record.body) for record in found)
    assert good + scanner.damaged_bytes == len(damaged)


@PATIENT
@given(st.binary(max_size=2000), st.integers(1, 300))
def test_garbage_when_scanned_then_all_of_it_is_damage(garbage: bytes, step: int) -> None:
    found, scanner = _scan(garbage, step)

    assert found == []
    assert scanner.damaged_bytes == len(garbage)


@PATIENT
@given(_RECORDS, st.integers(1, 9), st.data())
def test_intact_run_when_cut_or_damaged_anywhere_then_it_is_what_a_scanner_finds_before_that(
    records: list[Plain], max_records: int, data: st.DataObject
) -> None:
    frames = _encode(records)
    broken = bytearray(b"".join(frames))
    hit = data.draw(st.integers(0, len(broken) - 1))
    broken[hit] ^= 1 << data.draw(st.integers(0, 7))
    data_read = bytes(broken[: data.draw(st.integers(0, len(broken)))])

    found, end = scan_intact(data_read, 1000, max_records)

    ends = [sum(map(len, frames[: i + 1])) for i in range(len(frames))]
    whole = [i for i, end_offset in enumerate(ends) if end_offset <= min(hit, len(data_read))]
    if len(data_read) <= hit:
        whole = [i for i, end_offset in enumerate(ends) if end_offset <= len(data_read)]
    wanted = [i for i in whole if records[i][0] is not Kind.INTENT]
    assert [record.seq for record in found] == wanted[:max_records]
    assert _plain(found) == [records[i] for i in wanted[:max_records]]
    assert [record.end_offset for record in found] == [1000 + ends[i] for i in wanted[:max_records]]
    reached = wanted[max_records] if len(wanted) > max_records else len(whole)
    assert end == 1000 + ([0, *ends][reached])


def test_incomplete_tail_when_the_file_lives_then_it_is_waited_for() -> None:
    frame = encode(7, Kind.FINAL, b"t" * 16, b"body")
    scanner = Scanner(offset=100)

    assert list(scanner.feed(frame[:3])) == []
    assert list(scanner.feed(frame[3:20])) == []
    assert scanner.missing_bytes == FRAME_OVERHEAD - 20
    assert list(scanner.feed(frame[20:39])) == []
    assert scanner.missing_bytes == len(frame) - 39
    assert list(scanner.feed(frame[39:])) == [Record(Kind.FINAL, b"t" * 16, b"body", 7, 100 + len(frame))]
    assert scanner.damaged_bytes == 0


def test_length_when_damaged_to_reach_beyond_the_end_then_the_frames_behind_it_are_found() -> None:
    good = encode(1, Kind.FINAL, b"t" * 16, b"good")
    broken = bytearray(encode(0, Kind.FINAL, b"s" * 16, b"bad"))
    broken[5] = 0x10

    found, scanner = _scan(bytes(broken) + good, step=11)

    assert [record.body for record in found] == [b"good"]
    assert scanner.damaged_frames == 1


def test_largest_body_when_scanned_then_it_is_found_at_once() -> None:
    body = b"x" * MAX_BODY_BYTES
    frame = encode(1, Kind.CONTENT, b"t" * 16, body)
    scanner = Scanner()

    assert list(scanner.feed(frame[:65_536])) == []
    [record] = scanner.feed(frame[65_536 : 65_536 + scanner.missing_bytes])

    assert record.body == body


@pytest.mark.parametrize(
    ("trace_id", "body_bytes"),
    [pytest.param(b"short", 1, id="trace id"), pytest.param(b"t" * 16, MAX_BODY_BYTES + 1, id="body")],
)
def test_record_when_the_format_cannot_hold_it_then_it_is_refused(trace_id: bytes, body_bytes: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        encode(0, Kind.FINAL, trace_id, bytes(body_bytes))
