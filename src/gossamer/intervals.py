"""How sure is a measured accuracy, or the difference of two? Confidence intervals, and tests that are exact."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist, fmean, variance

import numpy as np

from gossamer.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First minus second; interval: 95 %; p_value: two-sided, that there is none. None: nothing to judge it by."""

    value: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Paired(Difference):
    """A difference on the same samples; only_first, only_second: samples on which one alone succeeds."""

    interval: tuple[float, float]
    p_value: float
    only_first: int
    only_second: int


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval (low, high) of a proportion `successes / n`.

    With p = successes / n and z the two-sided normal quantile of `confidence`, its ends are
    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n): unlike the normal interval it stays in [0, 1] and is
    not empty at p = 0 or 1 (Wilson, JASA 1927; Brown, Cai & DasGupta, Statistical Science 2001).

    Raises DataError where there is no sample or a count is out of range, ConfigError for a confidence outside
    (0, 1).
    """
    if n < 1:
        raise DataError("samples", expected="at least one", got=n, remedy="evaluate on at least one sample")
    if not 0 <= successes <= n:
        raise DataError("successes", expected=f"a count from 0 to {n}", got=successes, remedy="count each sample once")
    if not 0 < confidence < 1:
        raise ConfigError("confidence", expected="a share in (0, 1)", got=confidence, remedy="write 0.95 for 95 %")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At 0 and n the formula gives exactly 0 and 1; rounding would miss them.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return low, high


def paired_difference(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval (low, high) of the difference of two proportions counted on the same n samples.

    only_first, only_second: samples on which one succeeds and the other does not. With a = (only_first + 1) / (n + 2)
    and b likewise, a - b -+ z sqrt((a + b - (a - b)^2) / (n + 2)), cut to [-1, 1] (Bonett and Price, 2012).

    Raises DataError where counts are out of range, ConfigError for a confidence outside (0, 1).
    """
    if n < 1 or min(only_first, only_second) < 0 or only_first + only_second > n:
        got = f"{only_first} and {only_second} of {n}"
        raise DataError("paired samples", expected="counts within the samples", got=got, remedy="count each once")
    if not 0 < confidence < 1:
        raise ConfigError("confidence", expected="a share in (0, 1)", got=confidence, remedy="write 0.95 for 95 %")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    a, b = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = z * sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that two classifiers err equally often (McNemar, 1947).

    only_first, only_second: samples on which one succeeds and the other does not; under the hypothesis each is as
    likely, so that the smaller count is binomial with share 1/2.
    """
    together, smaller = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(together, successes) for successes in range(smaller + 1))
    return min(1.0, 2 * tail / 2**together)


def sign_flips(differences: Sequence[int]) -> float:
    """Return the exact two-sided p-value that differences are as likely with either sign (Fisher, 1935).

    differences: of one sample each, summed over all that was measured on it; of a single measurement they are -1, 0 or
    1, and the test is McNemar's.
    """
    chances = np.ones(1)
    for size in map(abs, filter(None, differences)):
        flipped = np.zeros(2 * size + 1)
        flipped[[0, -1]] = 0.5
        chances = np.convolve(chances, flipped)
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(differences))].sum()))


def newcombe(first: int, n_first: int, second: int, n_second: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval (low, high) of the difference of two proportions counted on different samples.

    With p, q the proportions and (l, u), (m, v) their Wilson intervals: p - q - sqrt((p - l)^2 + (v - q)^2) and
    p - q + sqrt((u - p)^2 + (q - m)^2) (Newcombe, Statistics in Medicine 1998, method 10). Raises what `wilson` does.
    """
    p, q = first / n_first if n_first else 0.0, second / n_second if n_second else 0.0
    (low, high), (least, most) = wilson(first, n_first, confidence), wilson(second, n_second, confidence)
    return p - q - sqrt((p - low) ** 2 + (most - q) ** 2), p - q + sqrt((high - p) ** 2 + (q - least) ** 2)


def fisher(first: int, n_first: int, second: int, n_second: int) -> float:
    """Return the exact two-sided p-value that two proportions counted on different samples are equal (Fisher, 1935).

    Given the successes of both together, those of the first are hypergeometric; what is no more likely than what was
    counted is summed.
    """
    together = first + second
    least, most = max(0, together - n_second), min(n_first, together)
    counted, as_rare = comb(n_first, first) * comb(n_second, second), 0
    ways = comb(n_first, least) * comb(n_second, together - least)
    for successes in range(least, most + 1):
        as_rare += ways if ways <= counted else 0
        ways = ways * (n_first - successes) * (together - successes)
        ways //= (successes + 1) * (n_second - together + successes + 1)
    return as_rare / comb(n_first + n_second, together)


def welch(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the difference of two means with Welch's t interval and test (Welch, Biometrika 1947).

    first, second: one value a run, of unequal variances. Interval and p-value are None where a side has one value
    alone, or where the values of neither side differ: there is then no spread to judge by.
    """
    from scipy.special import stdtr, stdtrit  # noqa: PLC0415  (slow to import, needed here alone)

    difference = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return Difference(value=difference, interval=None, p_value=None)
    a, b = variance(first) / len(first), variance(second) / len(second)
    error = sqrt(a + b)
    if error < 1e-12:
        return Difference(value=difference, interval=None, p_value=None)
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    half = float(stdtrit(freedom, 0.5 + confidence / 2)) * error
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error))
    return Difference(value=difference, interval=(difference - half, difference + half), p_value=p_value)


def paired(first: Sequence[int], second: Sequence[int]) -> Paired:
    """Compare two networks by their outcomes on the same samples, 1 where right: (n,) each, n above 0."""
    only_first = sum(mine > other for mine, other in zip(first, second, strict=True))
    only_second = sum(mine < other for mine, other in zip(first, second, strict=True))
    return Paired(
        value=(only_first - only_second) / len(first),
        interval=paired_difference(only_first, only_second, len(first)),
        p_value=mcnemar(only_first, only_second),
        only_first=only_first,
        only_second=only_second,
    )


def unpaired(first: Sequence[int], second: Sequence[int]) -> Difference:
    """Compare two networks by their outcomes on different samples, 1 where right: (n,) and (m,), above 0."""
    counts = (sum(first), len(first), sum(second), len(second))
    value = counts[0] / counts[1] - counts[2] / counts[3]
    return Difference(value=value, interval=newcombe(*counts), p_value=fisher(*counts))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that all of them together err at the level each is held against (Holm, 1979).

    The i-th smallest of m is multiplied by m - i + 1, never falls below the one before, and ends at 1.
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        floor = max(floor, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = floor
    return adjusted
