"""Adversarial weight perturbation: the loss is taken where nearby weights make it worst (Wu et al., NeurIPS 2020)."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import kept_buffers
from gossamer.errors import ConfigError
from gossamer.sparsity import Sparsifier

Which: TypeAlias = Callable[[nn.Module], Sequence[nn.Parameter]]


def kernels(model: nn.Module) -> Sequence[nn.Parameter]:
    """Return every trainable tensor of two or more dimensions: what the authors perturb."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim > 1]


@dataclass(frozen=True, kw_only=True)
class WeightPerturbation:
    """Per tensor w, add gamma * |w| * g / |g| with g the gradient of the batch's loss, and take the step from there.

    gamma: length relative to the tensor's (published: 5e-3); start: first epoch (0-based) that is perturbed;
    which: the tensors. The authors ascend on a copy of the network with an optimiser of rate gamma; one step of plain
    ascent is equal to it up to the scale that the normalisation removes. Raises ConfigError.
    """

    gamma: float
    start: int = 0
    which: Which = kernels

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < 1.0:
            raise ConfigError(
                "training.weight_perturbation.gamma",
                expected="a share of each tensor's norm in [0, 1)",
                got=self.gamma,
                remedy="write 0.005, as published",
            )

    @contextmanager
    def around(
        self, model: nn.Module, sparsifier: Sparsifier, epoch: int, loss: Callable[[], Tensor]
    ) -> Generator[None]:
        """Hold the weights perturbed; afterwards they are as before, to the bit. loss: of the batch, with a graph."""
        if epoch < self.start or self.gamma == 0.0:
            yield
            return
        chosen = self.which(model)
        before = [parameter.detach().clone() for parameter in chosen]
        with kept_buffers(model):
            gradients = torch.autograd.grad(loss(), chosen, allow_unused=True)
        try:
            self._perturb(chosen, gradients)
            sparsifier.refresh()
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(chosen, before, strict=True):
                    parameter.copy_(value)
            sparsifier.refresh()

    @torch.no_grad()
    def _perturb(self, chosen: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(chosen, gradients, strict=True):
            if gradient is not None:
                length = self.gamma * parameter.norm() / (gradient.norm() + 1e-12)
                parameter.addcmul_(gradient, length)
