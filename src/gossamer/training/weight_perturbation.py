"""Adversarial weight perturbation: the loss is taken where nearby weights make it worst (Wu et al., NeurIPS 2020)."""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.attacks.crafting import kept_buffers
from gossamer.errors import ConfigError
from gossamer.sparsity import Sparsifier, targets

Which: TypeAlias = Callable[[nn.Module], Sequence[nn.Parameter]]
Averaging: TypeAlias = Callable[[Sequence[Tensor | None]], None]


def _alone(gradients: Sequence[Tensor | None]) -> None:
    """Leave gradients as they are: one process sees the whole batch."""


@dataclass(frozen=True, kw_only=True)
class WeightPerturbation:
    """Per kernel w, add gamma * |w| * g / |g| with g the gradient of the batch's loss, and take the gradient there.

    gamma: length relative to the kernel's (published: 5e-3 with TRADES, 1e-2 with adversarial training); start: first
    epoch (0-based) that is perturbed (published: 9 and 0). What is perturbed are the effective kernels of convolutions
    and linear layers: no bias, no norm, and no weight that is zero, so that dropped weights stay dropped. `which`
    names stored tensors to perturb in their place, such as scores.

    The authors ascend on a copy of the network with an optimiser of one step; plain ascent is equal to it, since the
    normalisation removes its scale. Statistics of batch norm do not see that ascent. The optimiser steps after the
    weights were put back: weight decay acts on them as they are, where the authors' acts on the perturbed ones. Raises
    ConfigError.
    """

    gamma: float
    start: int = 0
    which: Which | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma < 1.0:
            raise ConfigError(
                "training.weight_perturbation.gamma",
                expected="a share of each tensor's norm in [0, 1)",
                got=self.gamma,
                remedy="write 0.005, as published",
            )
        if self.start < 0:
            raise ConfigError(
                "training.weight_perturbation.start",
                expected="an epoch of at least 0",
                got=self.start,
                remedy="write 0",
            )

    @contextmanager
    def around(
        self,
        model: nn.Module,
        sparsifier: Sparsifier,
        epoch: int,
        loss: Callable[[], Tensor],
        *,
        average: Averaging = _alone,
    ) -> Generator[None]:
        """Hold the weights perturbed; afterwards they are as before, to the bit.

        loss: of the batch, with a graph; average: replaces gradients by their mean over all processes.
        """
        if epoch < self.start or self.gamma == 0.0:
            yield
            return
        with ExitStack() as restoring:
            if self.which is None:
                self._perturb_kernels(model, loss, average, restoring)
            else:
                self._perturb_stored(self.which(model), model, sparsifier, loss, average, restoring)
            yield

    def _perturb_kernels(
        self, model: nn.Module, loss: Callable[[], Tensor], average: Averaging, restoring: ExitStack
    ) -> None:
        layers = targets(model)
        plain = [each.module for each in layers if not parametrize.is_parametrized(each.module, "weight")]
        stored = [cast("nn.Parameter", module.weight) for module in plain]
        learned = [parameter for parameter in stored if parameter.requires_grad]
        shifts = [
            restoring.enter_context(_shifted(each.module, each.weight.detach()))
            for each in layers
            if parametrize.is_parametrized(each.module, "weight")
        ]
        gradients = _gradients(model, loss, [*learned, *(shift.by for shift in shifts)])
        average(gradients)
        restoring.enter_context(_restored(learned))
        weights = [*(parameter.detach().clone() for parameter in learned), *(shift.weight for shift in shifts)]
        with torch.no_grad():
            for held, weight, gradient in zip(
                [*learned, *(shift.by for shift in shifts)], weights, gradients, strict=True
            ):
                if gradient is not None:
                    held.add_(self._step(weight, gradient.masked_fill(weight == 0, 0.0)))
        for shift in shifts:
            shift.by.requires_grad_(False)

    def _perturb_stored(
        self,
        chosen: Sequence[nn.Parameter],
        model: nn.Module,
        sparsifier: Sparsifier,
        loss: Callable[[], Tensor],
        average: Averaging,
        restoring: ExitStack,
    ) -> None:
        gradients = _gradients(model, loss, chosen)
        average(gradients)
        restoring.callback(sparsifier.refresh)
        restoring.enter_context(_restored(chosen))
        with torch.no_grad():
            for parameter, gradient in zip(chosen, gradients, strict=True):
                if gradient is not None:
                    parameter.add_(self._step(parameter, gradient))
        sparsifier.refresh()

    def _step(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient * (self.gamma * weight.norm() / (gradient.norm() + 1e-12))


class _Shift(nn.Module):
    """The last parametrization of a kernel, for one step: adds `by`. weight: the kernel before it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.by = torch.zeros_like(weight).requires_grad_()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the kernel, moved."""
        return weight + self.by


@contextmanager
def _shifted(module: nn.Module, weight: Tensor) -> Generator[_Shift]:
    chain = cast("nn.ModuleList", module.parametrizations["weight"])  # type: ignore[union-attr,index]
    shift = _Shift(weight)
    chain.append(shift)
    try:
        yield shift
    finally:
        del chain[-1]


@contextmanager
def _restored(parameters: Sequence[nn.Parameter]) -> Generator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def _gradients(model: nn.Module, loss: Callable[[], Tensor], at: Sequence[Tensor]) -> Sequence[Tensor | None]:
    with kept_buffers(model):
        return torch.autograd.grad(loss(), at, allow_unused=True)
