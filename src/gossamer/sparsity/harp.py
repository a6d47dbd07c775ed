"""HARP: every layer learns how many of its weights it keeps, every weight how much it matters, under one budget.

Source: Zhao & Wressnegger, "Holistic Adversarially Robust Pruning", ICLR 2023, and its released code.

Weights are frozen; each has a score s, each layer one logit r. A layer keeps the share
k = k_min + (1 - k_min) * sigmoid(r) of its weights, k_min = floor * density: those of the largest |s|, that is all but
int((1 - k) * n). Gradients pass straight through the choice: with g = dL/dm = dL/dw_eff * w at the mask m,
dL/ds = g * sign(s) and dL/dk = sum(g), over kept and dropped weights alike. The loss gains gamma * hw with
hw = max(0, sum_l n_l k_l / (density * N) - 1), of the real-valued shares. gamma is gamma_0 in the first epoch,
2 gamma_0 in the second, and so on, until hw rounds to 0.0000 at an epoch's end; from then on it stays.
"""

import math
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.errors import ConfigError, RunError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import Budget, BudgetSpec, check_counts, check_density, divide
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.choose import best_of_each
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.freezing import freeze_weights
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import Averaged, BudgetContract, Finalised, Horizon
from gossamer.sparsity.score_starts import from_weights
from gossamer.sparsity.targets import Target
from gossamer.sparsity.work import settled

Learn: TypeAlias = Literal["both", "scores", "rates"]

# The share of the range above the floor at which a rate may start: at 0 or 1 a logit has no finite value.
LEAST, MOST = 1e-3, 0.99
NEAREST = 1e-7


class Rated(nn.Module):
    """Parametrization from scores to the kept part of frozen weights, with a rate that learns beside the scores.

    The mask is renewed once a step, not here; gradients pass straight through it to scores and rate.
    """

    weight: Tensor
    mask: Tensor

    def __init__(self, weight: Tensor, logit: float, floor: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit, dtype=weight.dtype, device=weight.device))
        self.floor = floor
        self.register_buffer("weight", weight)
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    @property
    def rate(self) -> Tensor:
        """The share of weights that the layer keeps: a scalar with a graph to its logit."""
        return self.floor + (1.0 - self.floor) * torch.sigmoid(self.logit)

    def forward(self, scores: Tensor) -> Tensor:
        """Return the effective weight, in the shape of the scores."""
        importance, rate = scores.abs(), self.rate
        # Both differences are exactly zero: they carry gradients and no values.
        mask = self.mask.to(self.weight.dtype) + (importance - importance.detach()) + (rate - rate.detach())
        return self.weight * mask


class RateSearch(NoSparsifier):
    """The sparsifier of HARP's mask search.

    density: share K of all prunable weights to keep; floor: k_min as a share of it; gamma: gamma_0;
    initial_density, budget: where the rates start, 0.1 in every layer as published (the density itself where that is
    larger); learn: both, scores (rates stay as `budget` divides the density) or rates (scores stay magnitudes);
    decay_rates: weight decay pulls the logits to 0 too, as published; rate_clip: largest gradient of a logit, None for
    any, as published: a filter that lost all its weights before a batch norm gives gradients hundreds of times too
    large, which drive a rate to 1 for good; tolerance: share by which the rates may still exceed the budget at the
    phase's end, where they are scaled together to fill it. Raises ConfigError for impossible fields, RunError at the
    end of the phase where the budget was missed by more.
    """

    contract: BudgetContract = "at-most"
    averaged: Averaged = "trainable"

    def __init__(
        self,
        *,
        density: float,
        floor: float = 0.1,
        gamma: float = 0.01,
        initial_density: float | None = None,
        budget: BudgetSpec = "uniform",
        learn: Learn = "both",
        decay_rates: bool = True,
        rate_clip: float | None = 0.1,
        tolerance: float = 0.05,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self._initial = max(0.1, density) if initial_density is None else initial_density
        check_density(self._initial, "method.initial_density")
        if not 0.0 < floor < 1.0:
            expected = "a share of the density in (0, 1)"
            raise ConfigError("method.floor", expected=expected, got=floor, remedy="write 0.1, as published")
        _check_not_negative("method.gamma", gamma, "write 0.01, as published")
        _check_not_negative("method.tolerance", tolerance, "write 0.05 for 5 % of the budget")
        _check_not_negative("method.rate_clip", rate_clip or 0.0, "write 1, or leave it out")
        self._floor = floor * density
        self._first_gamma = gamma
        self._budget: Budget = make_budget(budget)
        self._learn: Learn = learn
        self._decay_rates = decay_rates
        self._rate_clip = rate_clip
        self._tolerance = tolerance
        self._fixed: dict[str, int] = {}
        self._epochs = 0
        self._epoch = 0
        self._gamma = gamma
        self._frozen = False

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Freeze the weights, score them by magnitude, and start the rates; raises ConfigError without a horizon."""
        super().attach(model, draws, horizon)
        if horizon is None:
            raise ConfigError("horizon", expected="the length of training", got="nothing", remedy="give epochs")
        self._epochs = horizon.epochs
        shapes = {layer.name: tuple(layer.weight.shape) for layer in self._layers}
        self._budget = settled(self._budget, model, horizon)
        if self._learn == "scores":
            self._fixed = counts = divide(self._budget, shapes, self.density)
        else:
            # Where rates start, a layer may be too small for a whole weight: it is lifted to its floor.
            counts = self._budget(shapes, self._initial)
            check_counts(counts, {layer.name: layer.size for layer in self._layers})
        freeze_weights(model)
        for layer in self._layers:
            weight = layer.parameter.detach().clone()
            rated = Rated(weight, self._logit(counts[layer.name] / layer.size), self._floor)
            rated.logit.requires_grad_(self._learn != "scores")
            parametrize.register_parametrization(layer.module, "weight", rated)
            with torch.no_grad():
                layer.parameter.copy_(from_weights(weight, 0.0, draws))
            layer.parameter.requires_grad_(self._learn != "rates")
        self.refresh()

    def undecayed(self) -> Collection[nn.Parameter]:
        """Return the logits of the rates, unless they decay as published."""
        return () if self._decay_rates else [_rated(layer).logit for layer in self._layers]

    @torch.no_grad()
    def refresh(self) -> None:
        """Choose the masks anew from scores and rates."""
        scores = {layer.name: layer.parameter.detach().abs() for layer in self._layers}
        chosen = best_of_each(scores, self.counts())
        for layer in self._layers:
            _rated(layer).mask.copy_(chosen[layer.name])

    def counts(self) -> dict[str, int]:
        """Return how many weights each layer keeps: n - int((1 - k) * n)."""
        if self._fixed:
            return self._fixed
        rates = zip(self._layers, self.rates(), strict=True)
        return {layer.name: layer.size - int((1.0 - rate) * layer.size) for layer, rate in rates}

    @torch.no_grad()
    def rates(self) -> list[float]:
        """Return k of each layer."""
        if self._fixed:
            return [self._fixed[layer.name] / layer.size for layer in self._layers]
        return torch.stack([_rated(layer).rate for layer in self._layers]).tolist()

    def excess(self) -> Tensor:
        """Return hw = max(0, sum n_l k_l / (K N) - 1), with a graph to the rates."""
        kept = torch.stack([layer.size * _rated(layer).rate for layer in self._layers]).sum()
        return (kept / (self.density * self._total) - 1.0).clamp(min=0.0)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return gamma * hw, or None where the rates are fixed."""
        return None if self._fixed else self._gamma * self.excess()

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Clip the gradients of the logits."""
        for layer in self._layers:
            gradient = _rated(layer).logit.grad
            if gradient is not None and self._rate_clip is not None:
                gradient.clamp_(-self._rate_clip, self._rate_clip)

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Choose the masks anew."""
        self.refresh()

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Raise gamma unless the budget was met once; settle the rates after the last epoch."""
        if self._fixed:
            return
        self._frozen = self._frozen or round(float(self.excess().detach()), 4) == 0.0
        self._epoch = epoch + 1
        if not self._frozen:
            self._gamma = (self._epoch + 1) * self._first_gamma
        if self._epoch == self._epochs:
            self._settle()

    def measures(self) -> Mapping[str, float]:
        """Return the share that every layer keeps, by how much the whole exceeds its budget, and gamma."""
        rates = zip(self._layers, self.rates(), strict=True)
        shares = {f"rate/{layer.name}": rate for layer, rate in rates}
        if self._fixed:
            return shares
        return {**shares, "excess": float(self.excess().detach()), "gamma": self._gamma}

    def masks(self) -> Masks:
        """Return the weights chosen now."""
        return Masks({layer.name: _rated(layer).mask.clone() for layer in self._layers})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy: the frozen weights where they are chosen, zero elsewhere."""
        return finalise(model, self.masks())

    def state_dict(self) -> dict[str, Tensor]:
        """Return where gamma stands; scores, rates and masks are in the model."""
        return {
            "epoch": torch.tensor(self._epoch),
            "gamma": torch.tensor(self._gamma, dtype=torch.float64),
            "frozen": torch.tensor(self._frozen),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take gamma back."""
        self._epoch, self._gamma = int(state["epoch"]), float(state["gamma"])
        self._frozen = bool(state["frozen"])
        self.refresh()

    @property
    def _total(self) -> int:
        return sum(layer.size for layer in self._layers)

    def _logit(self, rate: float, least: float = LEAST, most: float = MOST) -> float:
        share = (rate - self._floor) / (1.0 - self._floor) if self._floor < 1.0 else most
        return float(torch.logit(torch.tensor(min(max(share, least), most), dtype=torch.float64)))

    def _settle(self) -> None:
        """Scale the rates together so that the whole keeps int(K * N) weights, or as few less as rounding allows."""
        excess = float(self.excess().detach())
        if excess > self._tolerance:
            raise RunError(
                "density of the mask search",
                expected=f"at most {self.density:g}, or {self._tolerance:.0%} of it more",
                got=f"{self.density * (1.0 + excess):.4g} after {self._epochs} epochs",
                remedy="raise method.gamma or method.prune_epochs, or lower method.initial_density",
            )
        budget = int(self.density * self._total)
        rates = self.rates()
        fits, exceeds = 0.0, 1.0 / min(rates)
        for _ in range(60):
            factor = (fits + exceeds) / 2
            self._set_rates([factor * rate for rate in rates])
            fits, exceeds = (fits, factor) if sum(self.counts().values()) > budget else (factor, exceeds)
        self._set_rates([fits * rate for rate in rates])
        if (kept := sum(self.counts().values())) > budget:
            raise RunError(
                "density of the mask search",
                expected=f"at most {budget:,} weights",
                got=f"{kept:,}, the least that the floor of every layer allows",
                remedy="raise method.density",
            )
        self.refresh()

    @torch.no_grad()
    def _set_rates(self, rates: list[float]) -> None:
        for layer, rate in zip(self._layers, rates, strict=True):
            # What was learned may lie nearer to the ends than a start from which the rate can still move.
            _rated(layer).logit.fill_(self._logit(rate, NEAREST, 1.0 - NEAREST))


def _rated(layer: Target) -> Rated:
    rated = layer.module.parametrizations["weight"][0]  # type: ignore[union-attr,index,operator]
    assert isinstance(rated, Rated)
    return rated


def _check_not_negative(field: str, value: float, remedy: str) -> None:
    if not 0.0 <= value < math.inf:
        raise ConfigError(field, expected="a finite number >= 0", got=value, remedy=remedy)
