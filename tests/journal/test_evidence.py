"""A record is at fault if it is refused, another that needs as much is stored, and it is refused again."""

from collections.abc import Sequence

import pytest

from proxy.journal.evidence import WITNESSES, Evidence, Witnesses, weight
from proxy.journal.frames import FINAL, Kind, Record

CHARGED, TRACE, CONTENT, LEASE = (
    Record(FINAL, b"1" * 16, b'{"quota":{}}', 1, 0),
    Record(FINAL, b"2" * 16, b'{"quota":null}', 2, 0),
    Record(Kind.CONTENT, b"3" * 16, b'{"quota":null}', 3, 0),
    Record(Kind.LEASE_KEPT, b"4" * 16, b"", 4, 0),
)
ANOTHER = Record(FINAL, b"5" * 16, b"{}", 5, 0)


@pytest.mark.parametrize(
    ("suspect", "stored", "expected"),
    [
        (CHARGED, ANOTHER, True),
        (CHARGED, TRACE, False),
        (CHARGED, CONTENT, False),
        (TRACE, CHARGED, True),
        (TRACE, CONTENT, False),
        (CONTENT, TRACE, True),
        (LEASE, CONTENT, True),
    ],
)
def test_evidence_when_another_is_stored_after_a_refusal_then_it_counts_if_it_needs_as_much(
    suspect: Record, stored: Record, expected: bool
) -> None:
    evidence = Evidence()
    evidence.note_refused(suspect)
    assert not evidence.is_against(suspect)
    evidence.note_stored([stored])
    assert evidence.is_against(suspect) is expected


@pytest.mark.parametrize(("suspect", "expected"), [(CHARGED, False), (TRACE, False), (CONTENT, True), (LEASE, True)])
def test_evidence_when_the_other_was_stored_before_the_refusal_then_it_does_not_cost_anybody_a_charge(
    suspect: Record, expected: bool
) -> None:
    evidence = Evidence()
    evidence.note_stored([ANOTHER])
    evidence.note_refused(suspect)
    assert evidence.is_against(suspect) is expected


def test_evidence_when_a_suspect_is_refused_again_then_what_was_stored_before_that_counts_no_more() -> None:
    evidence = Evidence()
    evidence.note_refused(CHARGED)
    evidence.note_stored([ANOTHER])
    evidence.note_refused(CHARGED)
    assert evidence.is_suspect(CHARGED) and not evidence.is_suspect(ANOTHER)
    assert not evidence.is_against(CHARGED)


async def test_witnesses_when_asked_then_those_that_need_as_much_come_in_order_and_from_the_front_again() -> None:
    pieces = [[CONTENT, LEASE], [TRACE, CHARGED], [ANOTHER], []]
    read = iter(pieces * 2)

    async def following() -> Sequence[Record]:
        return next(read)

    witnesses = Witnesses(following)
    found = [await witnesses.next(weight(CHARGED)) for _ in range(4)]
    assert found == [CHARGED, ANOTHER, None, CHARGED]
    assert [witnesses.allowance() for _ in range(3)] == [WITNESSES, 2 * WITNESSES, 4 * WITNESSES]
