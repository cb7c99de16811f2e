"""Units are conserved: however requests come and go, nothing is spent but what was granted."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.quota.lease import Account, Lease, Part, shrink

COUNT = st.integers(0, 100)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), COUNT, COUNT),
        st.tuples(st.just("take"), COUNT, COUNT),
        st.tuples(st.just("give"), st.integers(0, 20), st.integers(0, 100)),
        st.tuples(st.just("shrink"), st.integers(0, 5), st.just(0)),
    ),
    max_size=60,
)


def lease(name: str = "a", tokens: int = 10, nanos: int = 10, until: float = 100.0) -> Lease:
    return Lease(name, 1, until, tokens, nanos)


def test_take_when_one_lease_has_enough_then_the_others_are_left_alone():
    account = Account("u", "p", [lease("a", 5, 5), lease("b", 10, 10)])
    parts = account.take(7, 7, 0.0)
    assert parts is not None
    assert [(part.lease.id, part.tokens, part.nanos) for part in parts] == [("b", 7, 7)]
    assert account.spare(0.0) == (8, 8)
    assert account.reserved == (7, 7)


def test_take_when_only_all_together_have_enough_then_each_bears_a_part():
    account = Account("u", "p", [lease("a", 5, 20), lease("b", 10, 1)])
    parts = account.take(12, 21, 0.0)
    assert parts is not None
    assert [(part.lease.id, part.tokens, part.nanos) for part in parts] == [("a", 5, 20), ("b", 7, 1)]


def test_take_when_one_dimension_is_short_then_nothing_is_taken():
    account = Account("u", "p", [lease("a", 100, 3)])
    assert account.take(1, 4, 0.0) is None
    assert account.spare(0.0) == (100, 3)


def test_take_when_the_window_is_over_then_the_lease_is_not_used():
    account = Account("u", "p", [lease(until=5.0)])
    assert account.take(1, 1, 5.0) is None
    assert account.spare(5.0) == (0, 0)


def test_give_when_less_was_used_then_the_rest_is_spare_again():
    account = Account("u", "p", [lease("a", 5, 5), lease("b", 5, 5)])
    shares = account.give(account.take(8, 8, 0.0) or [], 6, 2)
    assert [(share.lease_id, share.tokens, share.cost_nanos) for share in shares] == [("a", 5, 2), ("b", 1, 0)]
    assert account.spare(0.0) == (4, 8)
    assert account.reserved == (0, 0)


def test_give_when_more_was_used_then_spare_units_cover_it_and_the_charge_is_whole():
    account = Account("u", "p", [lease("a", 10, 10)])
    shares = account.give(account.take(4, 4, 0.0) or [], 7, 30)
    assert [(share.tokens, share.cost_nanos) for share in shares] == [(7, 30)]
    assert account.spare(0.0) == (3, 0)


def test_shrink_keeps_what_runs():
    one = lease("a", 10, 10)
    account = Account("u", "p", [one])
    parts = account.take(4, 3, 0.0)
    assert shrink(one) == (4, 3)
    assert account.take(1, 1, 0.0) is None
    account.give(parts or [], 1, 1)
    assert account.spare(0.0) == (3, 2)
    assert one.requests == 0


@given(STEPS)
def test_units_are_conserved(steps):
    """granted = spare + reserved + spent + given up, per dimension, for requests that keep to their reservation."""
    account = Account("u", "p")
    running: list[list[Part]] = []
    granted, spent, released = [0, 0], [0, 0], [0, 0]
    for step, first, second in steps:
        if step == "grant":
            account.leases.append(lease(str(len(account.leases)), first, second))
            granted = [granted[0] + first, granted[1] + second]
        elif step == "take" and (parts := account.take(first, second, 0.0)) is not None:
            running.append(parts)
        elif step == "give" and running:
            parts = running.pop(first % len(running))
            used = [
                sum(part.tokens for part in parts) * second // 100,
                sum(part.nanos for part in parts) * second // 100,
            ]
            shares = account.give(parts, *used)
            assert [sum(share.tokens for share in shares), sum(share.cost_nanos for share in shares)] == used
            spent = [spent[0] + used[0], spent[1] + used[1]]
        elif step == "shrink" and account.leases:
            one = account.leases[first % len(account.leases)]
            released = [released[0] + one.spare_tokens, released[1] + one.spare_nanos]
            shrink(one)
        spare, reserved = account.spare(0.0), account.reserved
        for i in (0, 1):
            assert granted[i] == spare[i] + reserved[i] + spent[i] + released[i]
        assert all(min(x.spare_tokens, x.spare_nanos, x.reserved_tokens, x.requests) >= 0 for x in account.leases)
