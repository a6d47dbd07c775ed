"""Which weights survive a cut: the best-scored of a layer or of the whole network, ties broken by position."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gossamer.sparsity.budgets import Budget, check_counts, divide, total_budget
from gossamer.sparsity.masks import Masks

# From how many scores on a sample of every so many tells where to look.
SAMPLED, STRIDE = 2**17, 64


def best_of_all(scores: Mapping[str, Tensor], keep: int) -> Masks:
    """Keep exactly `keep` weights of the whole network, those of the highest score (any shape per layer)."""
    joined = torch.cat([score.reshape(-1) for score in scores.values()])
    chosen = _best(joined, keep)
    parts = chosen.split([score.numel() for score in scores.values()])
    return Masks({name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)})


def best_of_each(scores: Mapping[str, Tensor], keep: Mapping[str, int]) -> Masks:
    """Keep exactly `keep[name]` weights of every layer, those of the highest score; raises ConfigError for too many."""
    check_counts(keep, {name: score.numel() for name, score in scores.items()})
    return Masks({name: _best(score.reshape(-1), keep[name]).reshape(score.shape) for name, score in scores.items()})


def choose(scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
    """Keep the best-scored weights: int(density * N) of the whole network where budget is None, else layer by layer."""
    if budget is None:
        return best_of_all(scores, total_budget({name: score.numel() for name, score in scores.items()}, density))
    return best_of_each(scores, divide(budget, {name: tuple(score.shape) for name, score in scores.items()}, density))


def _best(scores: Tensor, keep: int) -> Tensor:
    # A threshold alone keeps too many or too few where scores tie (all zeros, say): the first of the ties fill up.
    if keep <= 0:
        return torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    threshold = _smallest_kept(scores, keep)
    reached = scores >= threshold
    if int(torch.count_nonzero(reached)) == keep:
        return reached
    above, tied = scores > threshold, scores == threshold
    return above | (tied & (tied.cumsum(0) <= keep - above.sum()))


def _smallest_kept(scores: Tensor, keep: int) -> Tensor:
    """Return the score of rank `keep`, counted from the highest.

    Selecting takes linear time, a sort of millions of scores many times as long. Of many scores, the few beyond a bound
    that a sample tells, at the end that the rank is nearer to, are looked at alone; the result is the same.
    """
    if scores.numel() < SAMPLED:
        return _ranked(scores, keep)
    sample, from_below = scores[::STRIDE], scores.numel() - keep + 1
    if keep < from_below:
        candidates = scores[scores >= _ranked(sample, _generous(sample, keep))]
        return _ranked(candidates if candidates.numel() >= keep else scores, keep)
    candidates = scores[scores <= sample.kthvalue(_generous(sample, from_below)).values]
    return (candidates if candidates.numel() >= from_below else scores).kthvalue(from_below).values


def _generous(sample: Tensor, rank: int) -> int:
    """Return the rank in a sample beyond which, almost surely, as many of all scores lie as a rank among them says."""
    return min(sample.numel(), rank // STRIDE + 4 * math.isqrt(rank // STRIDE) + 8)


def _ranked(scores: Tensor, rank: int) -> Tensor:
    return scores.kthvalue(scores.numel() - rank + 1).values
