"""Is a trial worth going on with? Its probes beside those of finished trials that were no bigger, epoch by epoch.

Optuna's pruners look at one objective and refuse studies of several, in which a trial that is worse at one thing may be
better at another. So a trial is compared with no finished trial that had kept more weights at that epoch, where
size is wanted too, and with several metrics it has to lie behind in all of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from gossamer.sweep.search.spec import Prune

Curve: TypeAlias = Sequence[Mapping[str, Any]]
"""The metrics of a run, a line an epoch, phase after phase."""


def verdict(rule: Prune, own: Curve, finished: Sequence[Curve], *, sized: bool, seen: int = 0) -> str | None:
    """Return why a trial is given up, None while it is not; seen: how many of its epochs were judged before.

    sized: whether some objective is a cost, so that only trials no bigger are compared with. As in Optuna's median
    pruner, what counts of the trial is its best value so far, of the finished ones their value at that epoch.
    """
    for epoch in range(max(seen, rule.after - 1), len(own)):
        reasons = [_behind(rule, metric, own, finished, epoch, sized=sized) for metric in rule.metric]
        behind = [each for each in reasons if each is not None]
        if len(behind) == len(reasons):
            return f"after epoch {epoch + 1}: {'; '.join(behind)}"
    return None


def _behind(rule: Prune, metric: str, own: Curve, finished: Sequence[Curve], epoch: int, *, sized: bool) -> str | None:
    if own[epoch].get(metric) is None:
        return None
    best = max(line[metric] for line in own[: epoch + 1] if line.get(metric) is not None)
    others = [
        curve[epoch][metric]
        for curve in finished
        if len(curve) > epoch
        and curve[epoch].get(metric) is not None
        and (not sized or curve[epoch]["active"] <= own[epoch]["active"])
    ]
    if len(others) < rule.least:
        return None
    bar = float(np.quantile(others, rule.quantile))
    return f"{metric} {best:.3f}, where {len(others)} finished trials had {bar:.3f}" if best < bar else None
