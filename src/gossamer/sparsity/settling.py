"""Has the mask settled? A dense network whose would-be masks of the last epochs are kept and compared."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import check_density, total_budget
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import Horizon

DISTANCE = "mask_distance"


class SettlingMask(NoSparsifier):
    """Every weight lives; after each epoch the mask that a cut would choose is compared with those before it.

    The mask keeps the int(density * N) weights of largest magnitude of the whole network. Measured as `mask_distance`
    once `window` epochs are seen: the largest distance of the newest mask from the window - 1 before it, where two
    masks are apart by the share of weights on which they disagree (You et al., ICLR 2020). Raises ConfigError.
    """

    def __init__(self, *, density: float, window: int = 5) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        if window < 2:
            raise ConfigError(
                "method.window", expected="at least 2 epochs to compare", got=window, remedy="write 5, as published"
            )
        self.window = window
        # Bits: five masks as bool tensors would take more memory than the gradient.
        self._seen: list[dict[str, Tensor]] = []
        self._steps_per_epoch: int | None = None

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Remember the layers."""
        super().attach(model, draws, horizon)
        self._steps_per_epoch = None if horizon is None else horizon.steps_per_epoch

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Take the mask of the weights as they stand, and forget the oldest."""
        sizes = {layer.name: layer.size for layer in self._layers}
        scores = {layer.name: layer.weight.detach().abs() for layer in self._layers}
        newest = best_of_all(scores, total_budget(sizes, self.density)).pack()
        self._seen = [*self._seen[1 - self.window :], newest]

    def due(self, done: int) -> bool:
        """Return whether an epoch ends, after which a mask is taken."""
        return self._steps_per_epoch is not None and done % self._steps_per_epoch == 0

    def measures(self) -> Mapping[str, float]:
        """Return the largest distance, or nothing before there are enough masks."""
        if len(self._seen) < self.window:
            return {}
        *before, newest = self._seen
        total = sum(layer.size for layer in self._layers)
        return {DISTANCE: max(_disagreements(newest, mask) for mask in before) / total}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks remembered, as bits, the oldest first."""
        return {f"{age}/{name}": bits for age, mask in enumerate(self._seen) for name, bits in mask.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        seen: dict[int, dict[str, Tensor]] = {}
        for key, bits in state.items():
            age, name = key.split("/", 1)
            seen.setdefault(int(age), {})[name] = bits.cpu()
        self._seen = [seen[age] for age in sorted(seen)]


def _disagreements(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> int:
    """Return the number of weights that one of two packed masks keeps and the other does not."""
    differing = (torch.bitwise_xor(bits, second[name]).numpy() for name, bits in first.items())
    return sum(int(np.unpackbits(bits).sum()) for bits in differing)
