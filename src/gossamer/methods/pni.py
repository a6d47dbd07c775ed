"""PNI (He, Rakin & Fan, CVPR 2019): trainable noise on every weight under attack, and no weight removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gossamer.methods.rsr import RSR
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class PNI:
    """noise: what shares a trainable alpha; alpha: its first value; natural_epochs: None for the published 5 of 160."""

    noise: Literal["layer", "channel", "element"] = "layer"
    alpha: float = 0.25
    natural_epochs: int | None = None

    def __post_init__(self) -> None:
        self._noise_alone()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return Nesterov SGD with lr 0.1, momentum 0.9 and decay 3e-4, as published."""
        return self._noise_alone().default_optimizer(objective)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return natural epochs where there are any, and training, both with noise."""
        return self._noise_alone().phases(base, model)

    def _noise_alone(self) -> RSR:
        return RSR(noise=self.noise, alpha=self.alpha, strength=0.0, threshold=0.0, natural_epochs=self.natural_epochs)
