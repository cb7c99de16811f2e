import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.names import closeness, did_you_mean, distance, nearest, shown

WORDS = st.text("abcde_-", max_size=12)


@pytest.mark.parametrize(
    ("left", "right", "edits"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("listen", "listen", 0),
        ("lsiten", "listen", 1),
        ("listn", "listen", 1),
        ("ab", "ba", 1),
    ],
)
def test_distance_of_known_pairs_is_the_number_of_slips(left, right, edits):
    assert distance(left, right) == edits


@given(WORDS, WORDS)
def test_distance_of_any_two_words_is_symmetric_and_bounded(left, right):
    edits = distance(left, right)
    assert edits == distance(right, left)
    assert (edits == 0) == (left == right)
    assert abs(len(left) - len(right)) <= edits <= max(len(left), len(right))


@given(WORDS, WORDS, WORDS, WORDS)
def test_distance_of_two_words_does_not_depend_on_what_both_begin_and_end_with(begin, left, right, end):
    assert distance(begin + left + end, begin + right + end) == distance(left, right)


@given(WORDS, WORDS, st.integers(-1, 12))
def test_distance_of_any_two_words_within_a_limit_is_the_same_and_beyond_it_is_more(left, right, limit):
    edits = distance(left, right)
    found = distance(left, right, limit)
    assert found == edits if edits <= limit else found > limit


@pytest.mark.parametrize(
    ("word", "name", "edits"), [("dataDir", "data_dir", 0), ("dtaDri", "data_dir", 2), ("dir", "data_dir", None)]
)
def test_closeness_of_known_pairs_counts_neither_case_nor_separators(word, name, edits):
    assert closeness(word, name) == edits


@given(WORDS, WORDS, st.integers(-1, 6))
def test_closeness_of_any_two_words_when_only_so_much_matters_is_the_same_or_nothing(left, right, most):
    edits = closeness(left, right)
    assert closeness(left, right, most) == (None if edits is None or edits > most else edits)


@given(WORDS, WORDS)
def test_closeness_of_any_two_words_never_exceeds_the_distance(left, right):
    edits = closeness(left, right)
    assert edits is None or edits <= distance(left, right)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dataDir", "data_dir"),
        ("data-dir", "data_dir"),
        ("DATA_DIR", "data_dir"),
        ("dta_dir", "data_dir"),
        ("listn", "listen"),
        ("entirely_different", None),
        ("", None),
        ("x", None),
        ("x" * 10_000, None),
    ],
)
def test_nearest_when_given_a_slip_finds_the_name_and_does_not_guess_otherwise(word, expected):
    assert nearest(word, ("data_dir", "listen", "level", "1")) == expected


@given(WORDS, st.lists(WORDS, max_size=8))
def test_nearest_of_any_words_is_the_first_of_those_with_the_fewest_slips(word, candidates):
    ranks = [
        (edits, distance(word.lower(), name.lower()), abs(len(word) - len(name)), place)
        for place, name in enumerate(candidates)
        if (edits := closeness(word, name)) is not None
    ]
    assert nearest(word, candidates) == (candidates[min(ranks)[-1]] if ranks else None)


@given(WORDS, st.lists(WORDS, max_size=8), st.integers(0, 4))
def test_nearest_when_only_so_many_slips_are_pardoned_then_it_is_the_nearest_or_nothing(word, candidates, most):
    found = nearest(word, candidates)
    assert nearest(word, candidates, most) == (found if found is not None and closeness(word, found) <= most else None)


def test_did_you_mean_when_there_is_nothing_to_suggest_says_nothing():
    assert did_you_mean(None) == ""
    assert did_you_mean("listen") == "; did you mean listen?"


@given(st.text(max_size=300), st.integers(1, 100))
def test_shown_for_any_text_is_one_short_printable_line(text, limit):
    line = shown(text, limit)
    assert line.isprintable()
    assert len(line) <= limit + len("...")
