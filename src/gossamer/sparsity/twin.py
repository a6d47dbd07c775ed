"""Twin representation: every kernel is a product of two trained tensors, which parts large weights from small ones.

Source: Li et al., "Learning Adversarially Robust Sparse Networks via Weight Reparameterization", AAAI 2023, and its
released code.

w = theta * a * m, elementwise, with both factors drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)). A step of gradient
descent moves w by about -lr * (theta^2 + a^2) * dL/dw, and weight decay on both factors shrinks it by at least as much
as an l1 penalty would. Once, before a given epoch, the smallest |theta * a| of the whole network are cut; afterwards m
stays. For whole filters, a is (C_out, C_out), w = (a theta) * m with a applied across filters, and those of smallest
l2 norm over all convolutions are cut, at least one a layer left; linear layers stay as they are.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import Averaged, BudgetContract, Finalised, Horizon
from gossamer.sparsity.targets import Target, fan_in

Structure: TypeAlias = Literal["weights", "filters"]
FirstFactors: TypeAlias = Literal["uniform", "he"]


class Twin(nn.Module):
    """Parametrization w = theta * a * m."""

    mask: Tensor

    def __init__(self, factor: Tensor, shape: torch.Size) -> None:
        super().__init__()
        self.factor = nn.Parameter(factor)
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool, device=factor.device))

    def forward(self, theta: Tensor) -> Tensor:
        """Return the effective weight, in the shape of theta."""
        return torch.where(self.mask, theta * self.factor, 0.0)


class TwinFilters(Twin):
    """Parametrization w = (a theta) * m: every filter a mixture of all filters of its layer."""

    def forward(self, theta: Tensor) -> Tensor:
        """Return the effective weight, in the shape of theta: (C_out, ...)."""
        mixed = (self.factor @ theta.flatten(1)).view(theta.shape)
        return torch.where(self.mask, mixed, 0.0)


class TwinRepresentation(NoSparsifier):
    """The sparsifier of twin representation.

    density: share kept, N - round(N * (1 - density)) of all weights, or of all filters of convolutions; cut_after:
    epochs done when the cut is made, 0 for before the first step; structure: weights or filters; first: how the factors
    are drawn, `uniform` as published, which begins far below He's variance (batch norm hides it), or `he` in uniform
    draws whose product has He's variance. Raises ConfigError.
    """

    contract: BudgetContract = "exact"
    averaged: Averaged = "trainable"

    def __init__(
        self,
        *,
        density: float,
        cut_after: int = 9,
        structure: Structure = "weights",
        first: FirstFactors = "uniform",
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self.contract = "exact" if structure == "weights" else "reported"
        self._cut_after = cut_after
        self._structure: Structure = structure
        self._first: FirstFactors = first
        self._twins: tuple[Target, ...] = ()
        self._cut_step: int | None = None

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Draw both factors of every kernel; cut at once where no epoch lies before the cut."""
        super().attach(model, draws, horizon)
        if horizon is not None and self._cut_after >= horizon.epochs:
            raise ConfigError(
                "method.pruning_epoch",
                expected=f"an epoch of the training (1 to {horizon.epochs})",
                got=self._cut_after + 1,
                remedy="prune earlier, or train longer",
            )
        self._twins = tuple(layer for layer in self._layers if self._structure == "weights" or _is_filtered(layer))
        if not self._twins:
            raise ConfigError(
                "method.structure",
                expected="weights in a network that has no filters",
                got=self._structure,
                remedy="write structure: weights",
            )
        for layer in self._twins:
            self._split(layer, draws.at(layer.name))
        if self._cut_after == 0:
            self.cut()
        elif horizon is not None:
            self._cut_step = self._cut_after * horizon.steps_per_epoch

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Cut where the next epoch is the one to begin with it."""
        if epoch + 1 == self._cut_after:
            self.cut()

    def due(self, done: int) -> bool:
        """Return whether the epoch ends after which the cut is made."""
        return done == self._cut_step

    @torch.no_grad()
    def cut(self) -> None:
        """Choose what stays, by magnitude over the whole network."""
        chosen = self._chosen()
        for layer in self._twins:
            _twin(layer).mask.copy_(chosen[layer.name])

    def _chosen(self) -> Mapping[str, Tensor]:
        weights = {layer.name: layer.weight.detach() for layer in self._twins}
        return (_largest_weights if self._structure == "weights" else _largest_filters)(weights, self.density)

    def masks(self) -> Masks:
        """Return what the cut left; everything before it."""
        return self._with_the_rest({layer.name: _twin(layer).mask.clone() for layer in self._twins})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy with the product in place of its factors, cut now where training ended before the cut."""
        if all(bool(_twin(layer).mask.all()) for layer in self._twins):
            chosen = self._chosen()
            return finalise(
                model,
                self._with_the_rest(
                    {layer.name: chosen[layer.name].expand_as(_twin(layer).mask).clone() for layer in self._twins}
                ),
            )
        return finalise(model, self.masks())

    def _with_the_rest(self, cut: Mapping[str, Tensor]) -> Masks:
        whole = {layer.name: torch.ones_like(layer.weight, dtype=torch.bool) for layer in self._layers}
        return Masks({**whole, **cut})

    @torch.no_grad()
    def _split(self, layer: Target, draws: Draws) -> None:
        weight = layer.parameter
        bound = self._bound(fan_in(weight))
        theta = _uniform(weight.shape, bound, draws.at("theta"), weight)
        if self._structure == "weights":
            twin = Twin(_uniform(weight.shape, bound, draws.at("factor"), weight), weight.shape)
        else:
            square = torch.Size((len(weight), len(weight)))
            twin = TwinFilters(_uniform(square, 1 / math.sqrt(len(weight)), draws.at("factor"), weight), weight.shape)
        parametrize.register_parametrization(layer.module, "weight", twin)
        layer.parameter.copy_(theta)

    def _bound(self, inputs: int) -> float:
        # The product of two draws from U(-b, b) has standard deviation b^2 / 3.
        return 1 / math.sqrt(inputs) if self._first == "uniform" else math.sqrt(3 * math.sqrt(2 / inputs))


def _largest_weights(weights: Mapping[str, Tensor], density: float) -> Mapping[str, Tensor]:
    return best_of_all({name: weight.abs() for name, weight in weights.items()}, _kept(_count(weights), density))


def _largest_filters(weights: Mapping[str, Tensor], density: float) -> Mapping[str, Tensor]:
    norms = {name: weight.flatten(1).norm(dim=1) for name, weight in weights.items()}
    chosen = dict(best_of_all(norms, _kept(_count(norms), density)))
    for name, norm in norms.items():
        if not chosen[name].any():
            chosen[name][norm.argmax()] = True
    return {name: chosen[name].view(-1, *[1] * (weight.ndim - 1)) for name, weight in weights.items()}


def _count(values: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in values.values())


def _kept(total: int, density: float) -> int:
    return total - round(total * (1.0 - density))


def _uniform(shape: Sequence[int], bound: float, draws: Draws, like: Tensor) -> Tensor:
    return (bound * (2.0 * draws.uniform(torch.Size(shape)) - 1.0)).to(like)


def _is_filtered(layer: Target) -> bool:
    return not isinstance(layer.module, nn.Linear)


def _twin(layer: Target) -> Twin:
    found = layer.module.parametrizations["weight"][0]  # type: ignore[union-attr,index]
    assert isinstance(found, Twin)
    return found
