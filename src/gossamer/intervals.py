"""How sure a measured accuracy is: confidence intervals of a proportion and of a paired difference."""

from math import comb, sqrt
from statistics import NormalDist

from gossamer.errors import ConfigError, DataError


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
