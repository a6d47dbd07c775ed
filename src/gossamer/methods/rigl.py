"""RigL (Evci et al., "Rigging the Lottery", ICML 2020): connections grow where the gradient is largest."""

from dataclasses import dataclass
from typing import ClassVar

from gossamer.methods.moving_masks import MovingMasks


@dataclass(frozen=True, kw_only=True)
class RigL(MovingMasks):
    """Every 100 steps until three quarters of training, as published; gradients are those of the adversarial loss."""

    every: int | None = 100
    growth: ClassVar[str] = "gradient"
