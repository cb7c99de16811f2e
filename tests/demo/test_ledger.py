"""The ledger: bounded rows, totals over all."""

from proxy.demo.ledger import KEPT_ROWS, Bill, Ledger


def test_ledger_when_many_requests_then_rows_bounded_and_totals_complete() -> None:
    ledger = Ledger()
    for number in range(KEPT_ROWS + 5):
        ledger.add(Bill(str(number), "/v1/x", "m", False, None, input_tokens=2, output_tokens=3, completed=number > 4))
    document = ledger.document()
    assert len(document["requests"]) == KEPT_ROWS
    assert document["requests"][-1]["request_id"] == str(KEPT_ROWS + 4)
    count = KEPT_ROWS + 5
    assert document["totals"] == {
        "requests": count,
        "completed": KEPT_ROWS,
        "input_tokens": 2 * count,
        "output_tokens": 3 * count,
    }
