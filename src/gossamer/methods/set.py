"""Sparse evolutionary training (Mocanu et al., Nature Communications 2018): what is dropped grows anew at random."""

from dataclasses import dataclass
from typing import ClassVar

from gossamer.methods.moving_masks import MovingMasks


@dataclass(frozen=True, kw_only=True)
class SET(MovingMasks):
    """Once an epoch, with the budgets and the falling death rate of Evci et al. (ICML 2020).

    The source's own: budget er, final_rate 0.3 and until 1.
    """

    growth: ClassVar[str] = "random"
