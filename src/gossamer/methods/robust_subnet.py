"""Robust binary subnetworks (Liu et al., NeurIPS 2022): edge-popup under attack, with weights -1 and +1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from gossamer.methods.edge_popup import EdgePopup
from gossamer.sparsity import ScoreMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.training.phases import Phase
from gossamer.training.schedules import Restarted


@dataclass(frozen=True, kw_only=True)
class RobustSubnet(EdgePopup):
    """edge-popup with binary weights, adaptive layer budgets and, where asked for, a falling density.

    budget: {name: adaptive, p: P} keeps counts in proportion to n^P. stages: parts of training in which the density
    falls geometrically, the learning rate starting again in each. Signed Kaiming constants as published: weights
    `scaled-signed-constant`, scores `kaiming-uniform`. The network should end in a batch norm
    (`last_batch_norm: true` among its options): without one, the logits of binary weights explode.
    """

    budget: BudgetSpec = field(default_factory=lambda: _ADAPTIVE)
    weights: Literal["plain", "binary", "signed-constant", "scaled-signed-constant"] = "binary"
    scores: Literal["kaiming-uniform", "uniform", "from-weights"] = "uniform"
    stages: int = 1

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase, learning scores instead of weights."""
        (phase,) = super().phases(base, model)
        if self.stages == 1:
            return (phase,)
        return (replace(phase, schedule=Restarted(schedule=base.schedule, stages=self.stages)),)

    def search(self, density: float) -> partial[ScoreMask]:
        """Return what makes the sparsifier of a search at a density, reached in stages."""
        return partial(super().search(density), stages=self.stages)


_ADAPTIVE: Mapping[str, object] = {"name": "adaptive", "p": 0.1}
