"""Trainable scores: the weights are frozen, and training finds which of them to keep.

Sources: edge-popup (Ramanujan et al., "What's Hidden in a Randomly Weighted Neural Network?", CVPR 2020); under attack,
HYDRA (Sehwag et al., NeurIPS 2020) and robust binary subnetworks (Liu et al., NeurIPS 2022).

The effective weight is w * m with m = 1 where |s| is among the largest. The step of m is passed straight through, the
absolute value is not: dL/ds = dL/d(w m) * w * sign(s), for kept and dropped entries alike.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import Budget, BudgetSpec, check_density, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.freezing import freeze_weights, plain_batch_norms
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.patterns import IRREGULAR, PatternSpec, on_the_way
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.protocol import Averaged, BudgetContract, Finalised, Horizon
from gossamer.sparsity.schedules import density_at
from gossamer.sparsity.score_starts import FIRST_SCORES, FROZEN_WEIGHTS
from gossamer.sparsity.targets import PRUNABLE, Target
from gossamer.sparsity.work import settled

BATCH_NORMS = ("learn", "plain")


class StraightThrough(torch.autograd.Function):
    """w * m as a function of scores s; its gradient is g * w * sign(s) everywhere."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
        """Return the weights that the mask keeps, zero elsewhere; all of one shape."""
        ctx.save_for_backward(scores, weight)
        return torch.where(mask, weight, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        """Return the gradient at the scores; weight and mask are constants."""
        scores, weight = ctx.saved_tensors
        return gradients[0] * weight * scores.sign(), None, None


class Kept(nn.Module):
    """Parametrization from scores to the kept part of frozen weights; the mask is renewed once a step, not here."""

    weight: Tensor
    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, scores: Tensor) -> Tensor:
        """Return the effective weight, in the shape of the scores."""
        return StraightThrough.apply(scores, self.weight, self.mask)  # pyright: ignore[reportReturnType]


class ScoreMask(NoSparsifier):
    """Freeze every weight and bias, and learn a score for each weight; the best-scored are kept.

    The score takes the place of the weight as the layer's trainable tensor, so an optimiser that holds the weight
    trains the score. scope: `global` keeps int(density * N) of all weights, `layer` what `budget` gives each layer.
    pattern: in which shapes weights are kept (`gossamer.sparsity.patterns`), by the scores; single weights by default.
    weights: what is chosen from, a name in FROZEN_WEIGHTS; all but `plain` also set biases to zero, as the published
    networks have none. scores: how they begin, a name in FIRST_SCORES; bound: of `uniform` alone. batch_norm: `learn`
    leaves scale and shift to training, `plain` fixes them at 1 and 0. stages: the density falls to its end in so many
    equal parts of training, an equal share of what is left at each, stage i having density^(i / stages).
    Raises ConfigError.
    """

    contract: BudgetContract = "exact"
    averaged: Averaged = "trainable"

    def __init__(
        self,
        *,
        density: float,
        scope: str = "layer",
        budget: BudgetSpec = "uniform",
        pattern: PatternSpec = "irregular",
        weights: str = "plain",
        scores: str = "from-weights",
        bound: float = 0.01,
        batch_norm: str = "learn",
        stages: int = 1,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        check_scope(scope, budget)
        _check_choice("method.weights", weights, FROZEN_WEIGHTS)
        _check_choice("method.scores", scores, FIRST_SCORES)
        _check_choice("method.batch_norm", batch_norm, BATCH_NORMS)
        if not 0.0 < bound < math.inf:
            raise ConfigError("method.bound", expected="a number above 0", got=bound, remedy="write 0.01, as published")
        if stages < 1:
            raise ConfigError("method.stages", expected="at least 1", got=stages, remedy="write 1 for no schedule")
        self._budget: Budget | None = None if scope == "global" else make_budget(budget)
        self._pattern = make_pattern(pattern)
        self.contract: BudgetContract = "exact" if self._pattern == IRREGULAR else "at-most"
        self._weights = FROZEN_WEIGHTS[weights]
        self._keeps_biases = weights == "plain"
        self._scores = FIRST_SCORES[scores]
        self._bound = bound
        self._batch_norm = batch_norm
        self._stages = stages
        self._stage = 1
        self._steps = 0
        self._entered = torch.tensor(0)

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Freeze the model but for scores (and, where they learn, batch norms), and choose the first subnetwork.

        The final density is tried as well: a budget that cannot hold it is found out before training.
        """
        super().attach(model, draws, horizon)
        self._steps = self._steps_ahead(horizon)
        self._budget = settled(self._budget, model, horizon)
        self._freeze(model)
        for layer in self._layers:
            weight = layer.parameter.detach().clone()
            scores = self._scores(weight, self._bound, draws.at("scores", layer.name))
            parametrize.register_parametrization(layer.module, "weight", Kept(self._weights(weight, self.density)))
            with torch.no_grad():
                layer.parameter.copy_(scores)
            layer.parameter.requires_grad_(True)
        self._chosen(self.density)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Choose the kept weights anew from the scores as they stand."""
        chosen = self._chosen(density_at("geometric", self._stage / self._stages, start=1.0, end=self.density))
        for layer in self._layers:
            kept(layer).mask.copy_(chosen[layer.name])

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Choose anew after the scores moved."""
        before = {layer.name: kept(layer).mask.clone() for layer in self._layers}
        self._stage = self._stage_at(step + 1)
        self.refresh()
        for layer in self._layers:
            self._entered = self._entered.to(layer.parameter.device) + (kept(layer).mask & ~before[layer.name]).sum()

    def measures(self) -> Mapping[str, float]:
        """Return how often a dropped weight was taken in since the last call."""
        entered = float(self._entered)
        self._entered = torch.zeros_like(self._entered)
        return {"entered": entered}

    def masks(self) -> Masks:
        """Return the weights chosen now."""
        return Masks({layer.name: kept(layer).mask.clone() for layer in self._layers})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy with the weights chosen at the final density; scores are left behind."""
        return finalise(model, self._chosen(self.density))

    def state_dict(self) -> dict[str, Tensor]:
        """Return stage and counter; scores, weights and masks are in the model."""
        return {"stage": torch.tensor(self._stage), "entered": self._entered}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take stage and counter back."""
        self._stage = int(state["stage"])
        self._entered = state["entered"]
        self.refresh()

    @torch.no_grad()
    def _chosen(self, density: float) -> Masks:
        scores = {layer.name: layer.parameter.detach().abs() for layer in self._layers}
        return on_the_way(self._pattern, scores, density, self._budget)

    def _steps_ahead(self, horizon: Horizon | None) -> int:
        if horizon is not None:
            return horizon.steps
        if self._stages == 1:
            return 0
        raise ConfigError(
            "method.stages",
            expected="1 where the length of training is not known",
            got=self._stages,
            remedy="leave stages out, or train by a recipe",
        )

    def _stage_at(self, step: int) -> int:
        return 1 if self._stages == 1 else min(self._stages, 1 + step * self._stages // self._steps)

    def _freeze(self, model: nn.Module) -> None:
        freeze_weights(model, batch_norms=self._batch_norm != "learn")
        for module in model.modules():
            if isinstance(module, PRUNABLE) and module.bias is not None and not self._keeps_biases:
                nn.init.zeros_(module.bias)
        if self._batch_norm == "plain":
            plain_batch_norms(model)


def kept(layer: Target) -> Kept:
    """Return the parametrization of a layer that is under scores."""
    found = layer.module.parametrizations["weight"][0]  # type: ignore[union-attr,index]
    assert isinstance(found, Kept)
    return found


def _check_choice(field: str, value: str, choices: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in choices:
        expected = f"one of {', '.join(choices)}"
        raise ConfigError(field, expected=expected, got=repr(value), remedy="choose one of them")
