"""Bayesian connectivity sampling: signs fixed, magnitudes learned, connections that die are drawn anew elsewhere.

Source: Ozdenizci & Legenstein, "Training Adversarially Robust Sparse Networks via Bayesian Connectivity
Sampling", ICML 2021, with its supplement and released code; parent: Bellec et al., "Deep Rewiring", ICLR 2018.

Weights are signed (`gossamer.sparsity.signed`). After each optimiser step, Gaussian noise of standard deviation
lr * sigma moves the weights that were active before it, and where fewer than K = int(density * N) remain, layers are
drawn in proportion to their size and dormant weights of them, uniformly, are set to theta = 1e-12.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import check_density, total_budget
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.protocol import BudgetContract
from gossamer.sparsity.signed import SignedWeights, draw_layers
from gossamer.sparsity.targets import Target, fan_in, flat

# The standard deviation of a normal distribution cut at two standard deviations, in units of the uncut one.
TRUNCATION = 0.87962566103423978


class ConnectivitySampling(SignedWeights):
    """The sparsifier of Bayesian connectivity sampling.

    density: share of all prunable weights kept, p_c; sigma: noise per unit learning rate; initial: patterns of
    layer names and the share of weights each starts with, first match wins (layers without one start with
    p_c / 2); strict: scale the initial shares down where they exceed the budget, and trim self-revived surplus
    at the end, so that the budget is exact; reset_velocity: forget the velocity of a drawn weight (an ablation;
    the published code keeps it); l1: lambda of lambda * sum(theta) over active weights, added to the gradient;
    every_pattern_matches: refuse a pattern of `initial` that matches no layer.
    """

    def __init__(
        self,
        *,
        density: float,
        sigma: float = 1e-6,
        initial: Mapping[str, float] | None = None,
        strict: bool = False,
        reset_velocity: bool = False,
        l1: float = 0.0,
        every_pattern_matches: bool = True,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self.budget = 0
        self.contract: BudgetContract = "exact" if strict else "reported"
        self._sigma = sigma
        self._initial = dict(initial or {})
        self._strict = strict
        self._reset_velocity = reset_velocity
        self._l1 = l1
        self._every_pattern_matches = every_pattern_matches
        self._first: Mapping[str, int] = {}

    def initial_counts(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Return how many weights each layer starts with; sizes: of every layer, by name. Raises ConfigError."""
        unmatched = [pattern for pattern in self._initial if not any(fnmatchcase(name, pattern) for name in sizes)]
        if unmatched and self._every_pattern_matches:
            raise ConfigError(
                "method.initial",
                expected="patterns that match layer names",
                got=", ".join(unmatched),
                remedy=f"the layers are {', '.join(sizes)}",
            )
        counts = {name: int(self._initial_share(name) * size) for name, size in sizes.items()}
        total = sum(counts.values())
        budget = total_budget(sizes, self.density)
        if not self._strict or total <= budget:
            return counts
        return {name: count * budget // total for name, count in counts.items()}

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Record what is active before the update, and add the slope of the l1 term to the gradient."""
        super().before_step(step, optimizer)
        if self._l1 == 0.0:
            return
        for layer, active in zip(self._layers, self._was_active, strict=True):
            if layer.parameter.grad is not None:
                layer.parameter.grad.add_(active, alpha=self._l1)

    def _plan(self) -> None:
        sizes = {layer.name: layer.size for layer in self._layers}
        self.budget = total_budget(sizes, self.density)
        self._first = self.initial_counts(sizes)

    def _initial_share(self, name: str) -> float:
        for pattern, share in self._initial.items():
            if fnmatchcase(name, pattern):
                return share
        return self.density / 2

    def _draw_theta(self, layer: Target) -> Tensor:
        """Return |truncated He-normal| at the layer's first count of positions, exactly 0 elsewhere."""
        weight = layer.weight
        std = math.sqrt(2.0 / fan_in(weight)) / TRUNCATION
        theta = torch.empty(weight.shape)
        nn.init.trunc_normal_(
            theta, std=std, a=-2 * std, b=2 * std, generator=self._draws.at("theta", layer.name).generator()
        )
        return (theta.abs() * self._draw_places(layer, self._first[layer.name])).to(weight.device)

    def _perturb(self, draws: Draws) -> None:
        """Add noise to the weights that were active before the update."""
        scale = self._rate * self._sigma
        for layer, was_active in zip(self._layers, self._was_active, strict=True):
            theta = layer.parameter
            positions = flat(was_active).nonzero().flatten()
            generator = draws.at("noise", layer.name).generator(theta.device)
            noise = torch.randn(positions.numel(), generator=generator, device=theta.device)
            flat(theta).index_add_(0, positions, noise.to(theta.dtype), alpha=scale)

    def _missing(self, active: list[int], draws: Draws) -> list[int]:
        """Return R = max(0, K - active) connections, drawn among the layers in proportion to their size."""
        sizes = [layer.size for layer in self._layers]
        free = [size - count for size, count in zip(sizes, active, strict=True)]
        return draw_layers(sizes, free, self.budget - sum(active), draws)

    def _within_budget(self, masks: Masks) -> Masks:
        """Drop the smallest self-revived surplus, in strict mode."""
        if not self._strict or masks.kept <= self.budget:
            return masks
        return best_of_all({layer.name: layer.parameter.detach() for layer in self._layers}, self.budget)
