import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from gossamer.errors import ConfigError, DataError
from gossamer.intervals import mcnemar, paired_difference, wilson

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_hand_checked_value():
    # n = 10, p = 1/2, z² = 3.841459: centre 1/2, half width sqrt(z²/40 + z⁴/400) / (1 + z²/10) = 0.263406.
    low, high = wilson(5, 10)
    assert low == pytest.approx(0.236594, abs=1e-6)
    assert high == pytest.approx(0.763406, abs=1e-6)


def test_no_success_ends_at_zero_and_z_squared_over_n_plus_z_squared():
    assert wilson(0, 10) == (0.0, pytest.approx(3.841459 / 13.841459, abs=1e-6))
    assert wilson(10, 10) == (pytest.approx(10 / 13.841459, abs=1e-6), 1.0)


@given(counts, st.floats(0.5, 0.999))
def test_equals_scipy(count, confidence):
    successes, n = count
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts)
def test_contains_the_proportion_within_the_unit_interval(count):
    successes, n = count
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_rises_with_the_count(count):
    successes, n = count
    less, more = wilson(successes, n), wilson(successes + 1, n)
    assert less[0] < more[0]
    assert less[1] < more[1]


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 4), (5, 4)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(DataError):
        wilson(successes, n)


def test_confidence_in_per_cent_is_refused():
    with pytest.raises(ConfigError, match=r"0\.95"):
        wilson(1, 2, confidence=95)


def test_a_paired_difference_by_hand() -> None:
    # a = 12/102, b = 5/102, z = 1.959964: 0.068627 -+ 1.959964 * sqrt((0.166667 - 0.004710) / 102).
    low, high = paired_difference(11, 4, 100)
    assert (low, high) == pytest.approx((-0.00947, 0.14673), abs=2e-5)


def test_equal_classifiers_differ_by_nothing() -> None:
    low, high = paired_difference(0, 0, 1000)
    assert low == pytest.approx(-high)
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_by_hand() -> None:
    # 1 of 6 discordant pairs: 2 * (1 + 6) / 64.
    assert mcnemar(1, 5) == mcnemar(5, 1) == pytest.approx(14 / 64)
    assert mcnemar(3, 3) == 1.0


@given(first=st.integers(0, 30), second=st.integers(0, 30), rest=st.integers(1, 50))
def test_turning_a_pair_round_turns_its_interval_round(first: int, second: int, rest: int) -> None:
    n = first + second + rest
    low, high = paired_difference(first, second, n)
    assert -1 <= low <= high <= 1
    assert paired_difference(second, first, n) == pytest.approx((-high, -low))


def test_impossible_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="paired samples"):
        paired_difference(6, 5, 10)
