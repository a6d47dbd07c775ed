"""Hard masks: a fixed choice of weights, held by zeroing gradient, weight and momentum around every step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import BudgetSpec, check_density
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.choose import choose
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon
from gossamer.sparsity.scores import score


class HardMask(NoSparsifier):
    """Keep weights chosen once by score, over the whole network or layer by layer.

    scope: `global` keeps int(density * N) of all; `layer` keeps what `budget` gives each layer (`uniform`,
    {name: adaptive, p: 0.1}, ...). score: as in `gossamer.sparsity.scores`.

    Stored zeros are real zeros and the keys are the dense model's. Gradient (before clipping), weight and
    momentum are masked around every step: without the first, clipping sees dropped weights; without the last,
    a weight that a later method revives would jump on stale momentum.
    """

    contract: BudgetContract = "exact"

    def __init__(
        self, *, density: float, score: str = "magnitude", scope: str = "global", budget: BudgetSpec = "uniform"
    ) -> None:
        if scope not in ("global", "layer"):
            raise ConfigError("method.scope", expected="global or layer", got=scope, remedy="choose one of the two")
        super().__init__()
        self.density = check_density(density, "method.density")
        self._score = score
        self._scope = scope
        self._budget = make_budget(budget)
        self._masks: dict[str, Tensor] = {}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Choose the masks from the weights as they stand, and set the rest to zero."""
        super().attach(model, draws, horizon)
        scores = score(self._score, self._layers, draws)
        self._masks = dict(choose(scores, self.density, None if self._scope == "global" else self._budget))
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

    def _zero_weights(self) -> None:
        with torch.no_grad():
            for layer in self._layers:
                mask = self._masks[layer.name] = self._masks[layer.name].to(layer.parameter.device)
                _drop(layer.parameter, mask)


def _drop(values: Tensor, mask: Tensor) -> None:
    # Filled, not multiplied: an infinite gradient times 0 is not a number, and a negative weight times 0 is -0.0.
    values.masked_fill_(~mask, 0.0)
