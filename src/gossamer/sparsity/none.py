"""The null sparsifier: what the others override where they act."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.protocol import Averaged, BudgetContract, Finalised, Horizon
from gossamer.sparsity.targets import Target, targets


class NoSparsifier:
    """The null sparsifier: every weight lives, so that the loop has no `if sparse`."""

    contract: BudgetContract = "exact"
    averaged: Averaged = "effective"

    def __init__(self) -> None:
        self._layers: tuple[Target, ...] = ()

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Remember the layers, to count them."""
        del draws, horizon
        self._layers = targets(model)

    def undecayed(self) -> Collection[nn.Parameter]:
        """Return nothing: everything decays."""
        return ()

    def refresh(self) -> None:
        """Do nothing."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return None: nothing is added to the loss."""
        del model

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Do nothing."""

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Do nothing."""

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Do nothing."""

    def due(self, done: int) -> bool:
        """Return False: all steps are alike."""
        del done
        return False

    def measures(self) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    def masks(self) -> Masks:
        """Return masks that keep every weight."""
        return Masks({layer.name: torch.ones_like(layer.parameter, dtype=torch.bool) for layer in self._layers})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy."""
        return finalise(model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing."""
