"""Flying Bird and Flying Bird+ (Chen et al., ICLR 2022): dynamic sparse training against robust overfitting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.errors import ConfigError
from gossamer.methods.binary import BINARY_OPTIMIZER, binarised, check_binary
from gossamer.sparsity.binary_weights import Scale
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.flying_bird import FlyingBird as FlyingBirdMask
from gossamer.sparsity.flying_bird import FlyingBirdPlus
from gossamer.training.monitors import Probe
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class FlyingBird:
    """density: share of weights kept at first, divided among the layers by `budget`.

    growth: `bernoulli` as released (at random, as many as were dropped in expectation), `random` (exactly as many)
    or `gradient`. every, late_every: steps between updates in the first and the second half; None: the published
    share of training. death_rate, final_rate: share of a layer's weights that an update replaces, in half a cosine.

    plus: Flying Bird+: layers lose weights while the gap between training and validation robust accuracy rises, and
    gain while the validation loss does not fall. validation: the metric of a probe on held-out data, whose loss is
    measured with it; watched: `loss`, as released, or `error`, 1 less the accuracy; adapt_from, window, threshold,
    prune_extra, grow_extra: see `gossamer.sparsity.flying_bird`.

    binary: weights -1 and +1 where they are not zero, by BinaryConnect; binary_scale: `mean` multiplies them by the
    layer's mean magnitude.
    """

    density: float
    budget: BudgetSpec = "igq"
    growth: Literal["bernoulli", "random", "gradient"] = "bernoulli"
    every: int | None = None
    late_every: int | None = None
    death_rate: float = 0.5
    final_rate: float = 0.005
    plus: bool = False
    validation: str = "held_out/pgd"
    watched: Literal["loss", "error"] = "loss"
    adapt_from: float = 0.5
    window: int = 4
    threshold: float = 0.5
    prune_extra: float = 0.4
    grow_extra: float = 0.05
    binary: bool = False
    binary_scale: Scale = "none"

    def __post_init__(self) -> None:
        check_binary(self.binary_scale, binary=self.binary)
        self._sparsifier()()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4, as published, or BinaryConnect's Adam."""
        return BINARY_OPTIMIZER if self.binary else OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under moving masks; raises ConfigError where nothing measures what + looks at."""
        if self.plus:
            self._check_measured(base)
            base = replace(base, probes=[self._with_loss(probe) for probe in base.probes])
        phase = replace(base, sparsifier=self._sparsifier())
        return (binarised(phase, self.binary_scale) if self.binary else phase,)

    def _with_loss(self, probe: Probe) -> Probe:
        part, _, name = self.validation.partition("/")
        return probe.with_losses(name) if self.watched == "loss" and probe.part == part else probe

    def _check_measured(self, base: Phase) -> None:
        measured = [f"{probe.part}/{name}" for probe in base.probes for name in probe.robust]
        if self.validation not in measured:
            raise ConfigError(
                "method.validation",
                expected=f"a robust accuracy that a probe measures ({', '.join(measured) or 'none does'})",
                got=self.validation,
                remedy="set data.split.held_out, and training.probes: [{attacks: [pgd]}], or name another metric",
            )
        if base.attack is None:
            raise ConfigError(
                "method.plus",
                expected="an objective that attacks its training images",
                got="one that does not",
                remedy="write plus: false, or objective: {name: adversarial}",
            )

    def _sparsifier(self) -> partial[FlyingBirdMask]:
        basic = partial(
            FlyingBirdPlus if self.plus else FlyingBirdMask,
            density=self.density,
            budget=self.budget,
            growth=self.growth,
            every=self.every,
            late_every=self.late_every,
            death_rate=self.death_rate,
            final_rate=self.final_rate,
        )
        if not self.plus:
            return basic
        return partial(
            basic,
            validation=self.validation,
            watched=self.watched,
            adapt_from=self.adapt_from,
            window=self.window,
            threshold=self.threshold,
            prune_extra=self.prune_extra,
            grow_extra=self.grow_extra,
        )
