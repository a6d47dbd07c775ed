"""Hard projection: after every step the weights of largest magnitude are kept and the others set to zero.

Source: the l0 stage of Gui et al., NeurIPS 2019. Unlike under a mask that is held, gradient and momentum of what was
cut go on, so that a weight may come back.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.budgets import Budget, check_density
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.patterns import IRREGULAR, Pattern
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon
from gossamer.sparsity.work import settled


class Projected(NoSparsifier):
    """Keep the largest weights anew after every step; budget: of each layer, None: the whole network competes."""

    contract: BudgetContract = "exact"

    def __init__(self, *, density: float, budget: Budget | None = None, pattern: Pattern = IRREGULAR) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self.contract = "exact" if pattern == IRREGULAR else "at-most"
        self._budget = budget
        self._pattern = pattern
        self._masks: dict[str, Tensor] = {}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Keep the largest weights as they stand."""
        super().attach(model, draws, horizon)
        self._budget = settled(self._budget, model, horizon)
        self._cut()

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Keep the largest weights; optimiser state stays as it is."""
        self._cut()

    def masks(self) -> Masks:
        """Return the weights that are kept now."""
        return Masks(self._masks)

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy."""
        return finalise(model, self.masks())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks."""
        return dict(self._masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        for layer in self._layers:
            self._masks[layer.name] = state[layer.name].to(layer.parameter.device)

    @torch.no_grad()
    def _cut(self) -> None:
        magnitudes = {layer.name: layer.parameter.abs() for layer in self._layers}
        self._masks = dict(self._pattern(magnitudes, self.density, self._budget))
        for layer in self._layers:
            layer.parameter.masked_fill_(~self._masks[layer.name], 0.0)
