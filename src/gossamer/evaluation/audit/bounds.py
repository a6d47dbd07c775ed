"""When is a count of samples too large for chance? Exact bounds, and the constants of an audit with their reasons."""

import torch
from scipy.special import betaincinv
from torch import Tensor

from gossamer.errors import DataError
from gossamer.intervals import wilson
from gossamer.runs.audits import Measurement

CONFIDENCE = 0.99
"""Of the one-sided bounds below. An audit asks about a dozen such questions; each has a margin besides, so that
a sound model has to lie on the margin itself, and be unlucky, to be accused."""

STRAY = 0.01
"""Share of samples by which a weaker attack may beat a stronger one, or a gradient be zero: random starts, other
losses and ties of rounding explain a few samples of a sound model, seldom more than one in a hundred."""

UNFINISHED = 0.02
"""Share that five times the steps or restarts may still break: from 20 to 1,000 steps PGD on adversarially trained
networks gains 1 to 2 points (Madry et al., 2018; Croce & Hein, 2020)."""

OVERSTATED = 0.05
"""Share of samples that fall later from which a number is doubted: on adversarially trained networks, plain PGD
leaves up to about 5 points standing that the strongest ensembles break (Croce & Hein, 2020, table 2)."""

REFUTED = 0.10
"""Share that falls later from which a number is rejected: the gap that Croce & Hein (2020) call broken."""

LEAST_SAMPLES = 30
"""Fewer samples cannot tell one in a hundred from one in ten."""

BOUNDS = {
    "confidence": CONFIDENCE,
    "stray": STRAY,
    "unfinished": UNFINISHED,
    "overstated": OVERSTATED,
    "refuted": REFUTED,
}


def at_least(count: int, n: int, confidence: float = CONFIDENCE) -> float:
    """Return the share that lies below the true one with `confidence`, seen `count` of n (Clopper & Pearson, 1934).

    Raises DataError where there is no sample or the count is out of range.
    """
    _check(count, n)
    return float(betaincinv(count, n - count + 1, 1 - confidence)) if count else 0.0


def exceeds(flags: Tensor, share: float) -> bool:
    """Return whether more than `share` of all samples are flagged, beyond chance; flags: (N,) bool."""
    return bool(len(flags)) and at_least(int(flags.sum()), len(flags)) > share


def share_of(what: str, flags: Tensor) -> Measurement:
    """Return the share of flags: (N,) bool as a measurement; 0 of 0 counts as 0."""
    count, n = int(flags.sum()), len(flags)
    interval = wilson(count, n) if n else (0.0, 1.0)
    return Measurement(what=what, value=count / n if n else 0.0, count=count, n=n, interval=interval)


def nobody(n: int) -> Tensor:
    """Return that no sample is flagged: (N,) bool."""
    return torch.zeros(n, dtype=torch.bool)


def _check(count: int, n: int) -> None:
    if n < 1 or not 0 <= count <= n:
        raise DataError(
            "samples", expected="a count of at least one sample", got=f"{count} of {n}", remedy="count again"
        )
