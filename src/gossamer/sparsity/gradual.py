"""Gradual magnitude pruning: from a dense network, the smallest weights are cut again and again while it trains.

Source: Zhu & Gupta, "To prune, or not to prune", 2017: the density falls from 1 to d as d + (1 - d) * (1 - t)^3 over a
part of training, every few steps, and the network trains on at density d.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.approached import Approached
from gossamer.sparsity.budgets import Budget, BudgetSpec, check_density, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.dynamic_mask import check_every, check_share, known
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.held_mask import HeldMask
from gossamer.sparsity.masks import Masks, intersect
from gossamer.sparsity.patterns import IRREGULAR, PatternSpec, on_the_way
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.protocol import Finalised, Horizon
from gossamer.sparsity.schedules import density_at
from gossamer.sparsity.work import settled


class GradualPruning(HeldMask):
    """Cut the smallest weights every `every` steps between the shares `begin` and `end` of training.

    scope: `global` compares all weights, `layer` takes each layer from dense to what `budget` gives it in the end.
    pattern: in which shapes weights are left; a density that it does not admit yet is reached by cutting single
    weights, those first that it would not keep. schedule: as in `gossamer.sparsity.schedules`. What is cut stays cut.
    What is finalised before the end is cut to the final density first, so that nothing measured or kept on the way is
    denser than what was asked for. Raises ConfigError.
    """

    def __init__(
        self,
        *,
        density: float,
        scope: str = "global",
        budget: BudgetSpec = "uniform",
        pattern: PatternSpec = "irregular",
        schedule: str = "cubic",
        begin: float = 0.1,
        end: float = 0.75,
        every: int = 100,
    ) -> None:
        self._pattern = make_pattern(pattern)
        super().__init__(contract="exact" if self._pattern == IRREGULAR else "at-most")
        self.density = check_density(density, "method.density")
        check_scope(scope, budget)
        check_gradual(schedule=schedule, begin=begin, end=end, every=every)
        self._budget: Budget | None = None if scope == "global" else make_budget(budget)
        self._schedule = schedule
        self._begin = begin
        self._end = end
        self._every = every
        self._first = 0
        self._last = 0

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Keep everything at first; raises ConfigError without a horizon."""
        steps = known(horizon).steps
        self._first = math.floor(self._begin * steps)
        self._last = max(1, math.floor(self._end * steps))
        super().attach(model, draws, horizon)
        self._budget = settled(self._budget, model, horizon)
        # What pattern or budget cannot be is told now.
        magnitudes = {layer.name: layer.parameter.detach().abs() for layer in self._layers}
        self._pattern(magnitudes, self.density, self._budget)

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Cut if it is time; zero what was cut, and its momentum."""
        if self.due(step + 1):
            self._masks = dict(self._cut(self.density_after(step + 1)))
        super().after_step(step, optimizer)

    def due(self, done: int) -> bool:
        """Return whether weights are cut once `done` steps are done."""
        if done >= self._last:
            return done == self._last
        return done > self._first and (done - self._first) % self._every == 0

    def density_after(self, done: int) -> float:
        """Return the density that the cut after `done` steps leaves."""
        span = max(1, self._last - self._first)
        progress = 1.0 if done >= self._last else (done - self._first) / span
        return density_at(self._schedule, progress, start=1.0, end=self.density)

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy at the final density."""
        return finalise(model, self._cut(self.density))

    def _choose(self, draws: Draws) -> Mapping[str, Tensor]:
        return {layer.name: torch.ones(layer.weight.shape, dtype=torch.bool) for layer in self._layers}

    @torch.no_grad()
    def _cut(self, density: float) -> Masks:
        # Patterns take scores >= 0. Among single weights, what was cut before scores below every weight, zeros too.
        gone = -1.0 if self._pattern == IRREGULAR else 0.0
        scores = {
            layer.name: layer.parameter.detach().abs().masked_fill(~self._masks[layer.name], gone)
            for layer in self._layers
        }
        budget = None if self._budget is None else Approached(within=self._budget, density=self.density)
        return intersect(on_the_way(self._pattern, scores, density, budget), self.masks())


def check_gradual(*, schedule: str, begin: float, end: float, every: int) -> None:
    """Raise ConfigError for options that cannot be."""
    density_at(schedule, 0.0, start=1.0, end=1.0)
    check_share("method.begin", begin)
    check_share("method.end", end)
    if begin > end:
        raise ConfigError(
            "method.begin", expected=f"a share of training up to method.end ({end})", got=begin, remedy="begin earlier"
        )
    check_every("method.every", every)
