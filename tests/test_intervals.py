import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact, ttest_ind

from gossamer.errors import ConfigError, DataError
from gossamer.intervals import (
    fisher,
    holm,
    mcnemar,
    newcombe,
    paired,
    paired_difference,
    sign_flips,
    unpaired,
    welch,
    wilson,
)

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


def test_an_unpaired_difference_as_published():
    # 56/70 and 48/80 (Newcombe, Statistics in Medicine 1998, table II, method 10): 0.0524 to 0.3339.
    assert newcombe(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_fisher_by_hand():
    # The lady tasting tea, 3 of 4 cups right: (1 + 16 + 16 + 1) / 70.
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(4, 4, 0, 4) == pytest.approx(2 / 70)
    assert fisher(0, 5, 0, 7) == fisher(5, 5, 7, 7) == 1.0


@given(counts, counts)
def test_fisher_equals_scipy(first, second):
    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    assert fisher(*first, *second) == pytest.approx(fisher_exact(table).pvalue, rel=1e-9)


@given(counts, counts)
def test_turning_an_unpaired_pair_round_turns_its_interval_round(first, second):
    low, high = newcombe(*first, *second)
    assert -1 <= low <= first[0] / first[1] - second[0] / second[1] <= high <= 1
    assert newcombe(*second, *first) == pytest.approx((-high, -low))


def test_mcnemar_equals_a_binomial_test():
    assert mcnemar(11, 4) == pytest.approx(binomtest(4, 15).pvalue)


def test_welch_by_hand():
    # Variances 2 and 2 over 2 values each: error sqrt(2/2 + 2/2), freedom 2^2 / (1/1 + 1/1) = 2, where Student's
    # distribution has a closed form: the tail beyond t is 1/2 - t / (2 sqrt(2 + t^2)), its 97.5 % quantile 4.302653.
    found = welch([4.0, 6.0], [1.0, 3.0])
    assert found.value == 3.0
    assert found.interval == pytest.approx((3 - 4.302653 * math.sqrt(2), 3 + 4.302653 * math.sqrt(2)), abs=1e-5)
    t = 3 / math.sqrt(2)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)


def test_welch_equals_scipy():
    first, second = [0.844, 0.847, 0.833, 0.85], [0.817, 0.831, 0.833]
    found, expected = welch(first, second), ttest_ind(first, second, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    bounds = expected.confidence_interval()
    assert found.interval == pytest.approx((bounds.low, bounds.high), abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [([0.5], [0.1, 0.2]), ([0.5, 0.5], [0.1, 0.1])])
def test_without_scatter_there_is_a_difference_and_no_test(first, second):
    found = welch(first, second)
    assert found.value == pytest.approx(0.5 - sum(second) / len(second))
    assert (found.interval, found.p_value) == (None, None)


def test_outcomes_are_counted_sample_by_sample():
    found = paired([1, 1, 1, 0, 0], [1, 0, 0, 1, 0])
    assert (found.only_first, found.only_second, found.value) == (2, 1, pytest.approx(0.2))
    assert found.interval == paired_difference(2, 1, 5)
    assert found.p_value == 1.0
    other = unpaired([1, 1, 1, 0], [0, 1])
    assert other.value == pytest.approx(0.25)
    assert other.interval == newcombe(3, 4, 1, 2)
    assert other.p_value == fisher(3, 4, 1, 2)


def test_holm_by_hand():
    # 3 * 0.01; 2 * 0.03; the largest is not below the one before.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=30))
def test_sign_flips_of_single_outcomes_are_mcnemars_test(differences: list[int]) -> None:
    assert sign_flips(differences) == pytest.approx(mcnemar(differences.count(1), differences.count(-1)))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_sign_flips_are_counted_out(differences: list[int]) -> None:
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [sum(sign * abs(each) for sign, each in zip(chosen, differences, strict=True)) for chosen in signs]
    as_far = sum(abs(each) >= abs(sum(differences)) for each in sums)
    assert sign_flips(differences) == pytest.approx(as_far / len(sums))


def test_outcomes_on_a_sample_that_repeat_are_no_further_samples() -> None:
    once = [1] * 6 + [0] * 4
    assert sign_flips(once) == sign_flips([2 * each for each in once]) == 2 / 2**6
    assert sign_flips([]) == 1.0
