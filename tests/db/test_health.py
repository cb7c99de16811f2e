import asyncpg
import pytest

from proxy.db import health
from proxy.db.health import Health


def test_state_when_nothing_was_heard_then_down() -> None:
    assert (Health().state, Health().is_slow()) == ("down", False)


@pytest.mark.parametrize("before", ["down", "up", "slow"])
@pytest.mark.parametrize(("is_prompt", "after"), [(True, "up"), (False, "slow")])
def test_answer_when_at_once_or_late_then_up_or_slow(before: health.State, is_prompt: bool, after: str) -> None:
    one = Health()
    one.state = before
    one.note_answer(is_prompt=is_prompt)
    assert (one.state, one.is_slow()) == (after, after == "slow")


def test_slow_when_nothing_was_answered_for_long_then_silence_counts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Health()
    one.note_answer(is_prompt=False)
    monkeypatch.setattr(health, "_SLOW_S", 0.0)
    assert (one.state, one.is_slow()) == ("slow", False)


@pytest.mark.parametrize("is_prompt", [True, False])
@pytest.mark.parametrize("sqlstate", ["53100", "25006"])
def test_answer_when_a_full_or_read_only_server_has_just_refused_then_it_does_not_count(
    sqlstate: str, is_prompt: bool
) -> None:
    one = Health()
    one.note_refusal("08006")
    one.note_answer(is_prompt=True)
    assert one.state == "up"
    one.note_refusal(sqlstate)
    one.note_down(f"SQLSTATE {sqlstate}")
    one.note_answer(is_prompt=is_prompt)
    assert one.state == "down"


def test_log_when_states_alternate_then_each_is_told_once_until_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    one = Health()
    for _ in range(3):
        one.note_down("gone")
        one.note_answer(is_prompt=False)
        one.note_obstacle("the database role lacks a right: grant it", Exception("permission denied for table t"))
    one.note_answer(is_prompt=True)
    one.note_down("gone")
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == [
        "the database is unavailable", "the database is slow", "the database role lacks a right",
        "the database is available", "the database is unavailable",
    ]  # fmt: skip
    assert "DATABASE_URL" in caplog.records[0].__dict__["setting"]


def test_obstacle_when_its_detail_quotes_a_row_then_it_is_told_once_and_without_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Health()
    for second in range(3):
        error = asyncpg.CheckViolationError('no partition of relation "request_traces" found for row')
        error.detail = f"Partition key of the failing row contains (created_at) = (2026-11-27 04:00:0{second}+00)."
        one.note_obstacle("a table has no partition for a row", error)
    (record,) = caplog.records
    assert record.__dict__["reason"] == 'no partition of relation "request_traces" found for row'
