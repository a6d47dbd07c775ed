"""Near-zero weights become zeros: by a threshold or a density after training, or by shrinking after every step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.sparsity.budgets import check_density, total_budget
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract
from gossamer.sparsity.targets import Target

# Where 85 % of a ResNet-18's weights lie after training with a lasso (Rakin et al., 2019).
NEAR_ZERO = 1e-5


def survivors(layers: Sequence[Target], *, density: float | None = None, threshold: float | None = None) -> Masks:
    """Return the stored weights that a cut leaves: the int(density * N) largest of the network, or |w| >= threshold.

    A weight that is zero never survives a threshold. Neither given: the threshold NEAR_ZERO.
    """
    magnitudes = {layer.name: layer.parameter.detach().abs() for layer in layers}
    if density is not None:
        return best_of_all(magnitudes, total_budget({name: each.numel() for name, each in magnitudes.items()}, density))
    least = NEAR_ZERO if threshold is None else threshold
    return Masks({name: (each >= least) & (each > 0) for name, each in magnitudes.items()})


def check_cut(density: float | None, threshold: float | None) -> None:
    """Raise ConfigError for a density or threshold that cannot be, or both at once."""
    if density is not None and threshold is not None:
        raise ConfigError(
            "method.threshold",
            expected="a density or a threshold, not both",
            got=f"density {density:g} and threshold {threshold:g}",
            remedy="leave one of them out",
        )
    if density is not None:
        check_density(density, "method.density")
    if threshold is not None and not 0.0 <= threshold < float("inf"):
        raise ConfigError(
            "method.threshold",
            expected="a magnitude of at least 0",
            got=threshold,
            remedy="write 1e-5, or 0 to cut nothing",
        )


class SoftThreshold(NoSparsifier):
    """Proximal gradient for strength * sum |w|: after each step w <- sign(w) * max(|w| - lr * strength, 0).

    It takes the place of the lasso's term in the loss, and gives exact zeros, which may come back (Daubechies et al.,
    2004). Raises ConfigError.
    """

    contract: BudgetContract = "reported"

    def __init__(self, *, strength: float) -> None:
        super().__init__()
        if not 0.0 <= strength < float("inf"):
            raise ConfigError(
                "method.strength", expected="a number of at least 0", got=strength, remedy="write 1e-5, say"
            )
        self._strength = strength

    @torch.no_grad()
    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Shrink every kernel towards zero."""
        rate = float(optimizer.param_groups[0]["lr"])
        for layer in self._layers:
            layer.parameter.copy_(nn.functional.softshrink(layer.parameter, rate * self._strength))

    def masks(self) -> Masks:
        """Return the weights that are not zero."""
        return Masks({layer.name: _alive(layer.parameter) for layer in self._layers})


def _alive(weight: Tensor) -> Tensor:
    return weight.detach() != 0
