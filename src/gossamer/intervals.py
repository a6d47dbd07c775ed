"""How sure a measured accuracy is: confidence intervals of a proportion."""

from math import sqrt
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
