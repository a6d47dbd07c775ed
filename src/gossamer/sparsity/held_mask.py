"""Held masks: weights that are zero when training begins stay zero, with gradient and momentum masked around steps."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon


class HeldMask(NoSparsifier):
    """Hold what is there: the masks are the weights that are not zero when it takes hold.

    This is how a phase goes on from the sparse state of an earlier one.

    Stored zeros are real zeros and the keys are the dense model's. Gradient (before clipping), weight and
    momentum are masked around every step: without the first, clipping sees dropped weights; without the last,
    a weight that a later method revives would jump on stale momentum.

    contract: how the density bound whatever left the zeros.
    """

    def __init__(self, *, contract: BudgetContract = "exact") -> None:
        super().__init__()
        self.contract: BudgetContract = contract
        self._masks: dict[str, Tensor] = {}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Choose the masks from the weights as they stand, and set the rest to zero."""
        super().attach(model, draws, horizon)
        self._masks = dict(self._choose(draws))
        self._zero_weights()

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Zero the gradients of dropped weights."""
        for layer in self._layers:
            gradient = layer.parameter.grad
            if gradient is not None:
                _drop(gradient, self._masks[layer.name])

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Zero dropped weights and their momentum."""
        self._zero_weights()
        for layer in self._layers:
            for value in optimizer.state.get(layer.parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == layer.parameter.shape:
                    _drop(value, self._masks[layer.name])

    def masks(self) -> Masks:
        """Return the fixed masks."""
        return Masks(self._masks)

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy; its zeros are the stored ones."""
        return finalise(model, self.masks())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks."""
        return dict(self._masks)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        for layer in self._layers:
            self._masks[layer.name] = state[layer.name].to(layer.parameter.device)

    def _choose(self, draws: Draws) -> Mapping[str, Tensor]:
        return {layer.name: layer.weight.detach() != 0 for layer in self._layers}

    def _zero_weights(self) -> None:
        with torch.no_grad():
            for layer in self._layers:
                mask = self._masks[layer.name] = self._masks[layer.name].to(layer.parameter.device)
                _drop(layer.parameter, mask)


def _drop(values: Tensor, mask: Tensor) -> None:
    # Filled, not multiplied: an infinite gradient times 0 is not a number, and a negative weight times 0 is -0.0.
    values.masked_fill_(~mask, 0.0)
