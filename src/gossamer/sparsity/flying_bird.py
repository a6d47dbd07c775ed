"""Flying Bird and Flying Bird+: masks that move under adversarial training, and whose size follows robust overfitting.

Source: Chen et al., "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training", ICLR 2022,
and its released code, whose intervals, death rates and thresholds are the defaults.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gossamer.errors import ConfigError, RunError
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.dynamic_mask import DynamicMask, check_every, check_share
from gossamer.sparsity.protocol import BudgetContract

WATCHED = ("loss", "error")

# 200 epochs of 45,000 images in batches of 128, and the steps between updates in their first and second half.
PUBLISHED_STEPS, EARLY, LATE = 200 * 351, 900, 1200


class FlyingBird(DynamicMask):
    """Move masks that start by ideal gas quotas; contract: growth by chance holds the density in expectation only.

    every, late_every: steps between updates until half of the epochs are done, and after; None: the published share
    of training (900 and 1,200 of 70,200 steps; every where only every is given). The rest: as in DynamicMask.
    """

    def __init__(
        self,
        *,
        density: float,
        budget: BudgetSpec = "igq",
        growth: str = "bernoulli",
        every: int | None = None,
        late_every: int | None = None,
        death_rate: float = 0.5,
        final_rate: float = 0.005,
    ) -> None:
        super().__init__(
            density=density,
            budget=budget,
            growth=growth,
            every=every,
            death_rate=death_rate,
            final_rate=final_rate,
            until=1.0,
        )
        self.contract: BudgetContract = "reported"
        check_every("method.late_every", late_every)
        self._late_every = late_every or every

    def _interval(self, done: int) -> int:
        epoch = (done - 1) // self._horizon.steps_per_epoch
        late = epoch > self._horizon.epochs / 2
        given, published = (self._late_every, LATE) if late else (self._every, EARLY)
        return given or max(1, round(self._horizon.steps * published / PUBLISHED_STEPS))


class FlyingBirdPlus(FlyingBird):
    """Flying Bird whose layers lose or gain weights as robust overfitting comes and goes; no budget holds them.

    From the share `adapt_from` of the epochs on, over the last `window` changes from epoch to epoch: where at least
    the share `threshold` of those of the gap (training robust accuracy less the validation's) are rises, an update
    drops ceil(prune_extra * D * A) weights more; where at least that share of those of what is watched are not falls,
    it grows grow_extra more. validation: the metric of the robust accuracy on held-out data; watched: `loss`, that
    metric's, as released, or `error`, 1 less the accuracy. Raises ConfigError, also after an epoch that measured no
    such metric.
    """

    def __init__(
        self,
        *,
        density: float,
        validation: str = "held_out/pgd",
        watched: str = "loss",
        adapt_from: float = 0.5,
        window: int = 4,
        threshold: float = 0.5,
        prune_extra: float = 0.4,
        grow_extra: float = 0.05,
        budget: BudgetSpec = "igq",
        growth: str = "bernoulli",
        every: int | None = None,
        late_every: int | None = None,
        death_rate: float = 0.5,
        final_rate: float = 0.005,
    ) -> None:
        super().__init__(
            density=density,
            budget=budget,
            growth=growth,
            every=every,
            late_every=late_every,
            death_rate=death_rate,
            final_rate=final_rate,
        )
        check_adaptation(
            adapt_from=adapt_from, window=window, threshold=threshold, prune_extra=prune_extra, grow_extra=grow_extra
        )
        if watched not in WATCHED:
            raise ConfigError(
                "method.watched", expected=" or ".join(WATCHED), got=repr(watched), remedy="write loss, as published"
            )
        self._validation = validation
        self._loss = f"{validation}/loss" if watched == "loss" else None
        self._adapt_from = adapt_from
        self._window = window
        self._threshold = threshold
        self._prune_extra = prune_extra
        self._grow_extra = grow_extra
        self._epoch = 0
        self._gaps: list[float] = []
        self._watched: list[float] = []

    @property
    def prunes(self) -> bool:
        """Whether updates drop more than they grow: the gap keeps rising."""
        return self._adapts and _share([change > 0.0 for change in _changes(self._gaps)]) >= self._threshold

    @property
    def grows(self) -> bool:
        """Whether updates grow more: the validation loss, or error, does not fall."""
        return self._adapts and _share([change >= 0.0 for change in _changes(self._watched)]) >= self._threshold

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Remember the gap and what is watched, of an epoch that measured both."""
        self._epoch = epoch + 1
        trained, validated = (self._metric(metrics, name) for name in ("robust_accuracy", self._validation))
        loss = None if self._loss is None else self._metric(metrics, self._loss)
        if trained is None or validated is None or (self._loss is not None and loss is None):
            return
        self._gaps = [*self._gaps, trained - validated][-self._window - 1 :]
        self._watched = [*self._watched, 1.0 - validated if loss is None else loss][-self._window - 1 :]

    def measures(self) -> Mapping[str, float]:
        """Return what DynamicMask counts, and whether updates prune or grow more now."""
        return {**super().measures(), "prunes": float(self.prunes), "grows": float(self.grows)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return masks, counters and what was remembered."""
        remembered = {"#gaps": self._gaps, "#watched": self._watched, "#epoch": [float(self._epoch)]}
        return {
            **super().state_dict(),
            **{name: torch.tensor(values, dtype=torch.float64) for name, values in remembered.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take them back; raises RunError for a state that watched no loss."""
        if "#watched" not in state:
            raise RunError(
                "checkpoint of Flying Bird+",
                expected="losses that were watched",
                got="a state of another version, which watched errors",
                remedy="train anew; `method.watched: error` is the rule it went by",
            )
        super().load_state_dict(state)
        self._gaps, self._watched = state["#gaps"].tolist(), state["#watched"].tolist()
        self._epoch = int(state["#epoch"])

    @property
    def _adapts(self) -> bool:
        return len(self._gaps) > 1 and self._epoch >= self._adapt_from * self._horizon.epochs

    def _metric(self, metrics: Mapping[str, float | None], name: str) -> float | None:
        if name in metrics:
            return metrics[name]
        raise ConfigError(
            "method.validation",
            expected=f"a metric that every epoch measures ({', '.join(metrics) or 'none is'})",
            got=name,
            remedy="add a probe under training.probes that measures it, or name another",
        )

    def _amounts(self, active: int, rate: float) -> tuple[int, int]:
        dropped, grown = super()._amounts(active, rate)
        extra = math.ceil(self._prune_extra * rate * active) if self.prunes else 0
        factor = 1.0 + self._grow_extra if self.grows else 1.0
        return min(active, dropped + extra), int(grown * factor)


def check_adaptation(
    *, adapt_from: float, window: int, threshold: float, prune_extra: float, grow_extra: float
) -> None:
    """Raise ConfigError for options of Flying Bird+ that cannot be."""
    shares = {
        "adapt_from": adapt_from,
        "threshold": threshold,
        "prune_extra": prune_extra,
        "grow_extra": grow_extra,
    }
    for field, share in shares.items():
        check_share(f"method.{field}", share)
    if window < 1:
        raise ConfigError("method.window", expected="at least 1 change", got=window, remedy="write 4, as published")


def _changes(values: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(values)]


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)
