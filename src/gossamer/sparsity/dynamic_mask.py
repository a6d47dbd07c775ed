"""Masks that move while a network trains: the smallest weights of a layer are dropped, as many others grow from zero.

Sources: SET (Mocanu et al., Nature Communications 2018) grows at random, RigL (Evci et al., ICML 2020) where the
gradient is largest; Flying Bird (Chen et al., ICLR 2022) is either under adversarial training. At each update a layer
of A active weights drops ceil(D * A) of them, with D the death rate of the time, and grows as many anew.
"""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.choose import best_of_each
from gossamer.sparsity.hard_mask import HardMask
from gossamer.sparsity.protocol import BudgetContract, Horizon
from gossamer.sparsity.signed import draw_dormant
from gossamer.sparsity.targets import Target

Growth: TypeAlias = Callable[[Tensor, int, Tensor, Draws], Tensor]


def grow_uniformly(kept: Tensor, count: int, slopes: Tensor, draws: Draws) -> Tensor:
    """Return exactly `count` uniformly drawn positions outside `kept`, as bool; all: (n,)."""
    del slopes
    grown = torch.zeros_like(kept)
    if count:
        grown[draw_dormant(kept, count, draws.generator(kept.device))] = True
    return grown


def grow_by_chance(kept: Tensor, count: int, slopes: Tensor, draws: Draws) -> Tensor:
    """Return each position outside `kept` with probability count / free: `count` of them in expectation."""
    del slopes
    free = kept.numel() - _count(kept)
    return ~kept & (draws.uniform(kept.shape, device=kept.device) < count / max(1, free))


def grow_by_gradient(kept: Tensor, count: int, slopes: Tensor, draws: Draws) -> Tensor:
    """Return the `count` positions outside `kept` of the largest slopes |dL/dw|: (n,)."""
    del draws
    return best_of_each({"layer": slopes.masked_fill(kept, -1.0)}, {"layer": count})["layer"]


GROWTHS: Mapping[str, Growth] = {
    "random": grow_uniformly,
    "bernoulli": grow_by_chance,
    "gradient": grow_by_gradient,
}


class DynamicMask(HardMask):
    """Move a random first mask, layer by layer, every few steps, until a share of training is done.

    density, budget: how many weights each layer keeps; growth: a name in GROWTHS; every: steps between updates, None
    for once an epoch; death_rate, final_rate: D falls from one to the other in half a cosine over the updates' time;
    until: the share of all steps in which masks move. The last step moves none, so that no weight ships untrained;
    layers that are wholly dense do not move. A grown weight starts at 0; a weight dropped and grown in one update
    keeps its value, as in the released codes. What ships may lack grown weights whose gradient was always 0.
    Raises ConfigError.
    """

    def __init__(
        self,
        *,
        density: float,
        budget: BudgetSpec = "erk",
        growth: str = "random",
        every: int | None = 100,
        death_rate: float = 0.3,
        final_rate: float = 0.0,
        until: float = 0.75,
    ) -> None:
        super().__init__(density=density, score="random", scope="layer", budget=budget)
        self.contract: BudgetContract = "at-most"
        check_growth(growth)
        check_every("method.every", every)
        for field, value in (("death_rate", death_rate), ("final_rate", final_rate), ("until", until)):
            check_share(f"method.{field}", value)
        self._grow = GROWTHS[growth]
        self._needs_slopes = growth == "gradient"
        self._every = every
        self._death_rate = death_rate
        self._final_rate = final_rate
        self._until = until
        self._horizon = Horizon(epochs=0, steps_per_epoch=1)
        self._draws = Draws()
        self._slopes: dict[str, Tensor] = {}
        self._counts = {"updates": 0.0, "dropped": 0.0, "grown": 0.0}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Choose random masks and set the rest to zero; raises ConfigError without a horizon."""
        self._horizon = known(horizon)
        self._draws = draws
        super().attach(model, draws, horizon)

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Note the dense gradients where the coming update grows by them, then zero those of dropped weights."""
        if self._needs_slopes and self.due(step + 1):
            self._slopes = {layer.name: _slopes(layer) for layer in self._layers}
        super().before_step(step, optimizer)

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Move the masks if it is time; zero dropped weights and their momentum."""
        if self.due(step + 1):
            self._move(step)
        super().after_step(step, optimizer)

    def due(self, done: int) -> bool:
        """Return whether masks move once `done` steps are done."""
        last = min(self._until * self._horizon.steps, self._horizon.steps - 0.5)
        return done < last and done % self._interval(done) == 0

    def rate(self, done: int) -> float:
        """Return the death rate once `done` steps are done."""
        progress = min(1.0, done / max(1.0, self._until * self._horizon.steps))
        return self._final_rate + (self._death_rate - self._final_rate) * 0.5 * (1.0 + math.cos(math.pi * progress))

    def measures(self) -> Mapping[str, float]:
        """Return how often masks moved, and how many weights left and entered, since the last call."""
        counted = dict(self._counts)
        self._counts = dict.fromkeys(self._counts, 0.0)
        return counted

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks and the counters."""
        counts = {f"#{name}": torch.tensor(value, dtype=torch.float64) for name, value in self._counts.items()}
        return {**super().state_dict(), **counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take masks and counters back."""
        super().load_state_dict(state)
        self._counts = {name: float(state[f"#{name}"]) for name in self._counts}

    def _interval(self, done: int) -> int:
        return self._every or self._horizon.steps_per_epoch

    def _amounts(self, active: int, rate: float) -> tuple[int, int]:
        """Return how many weights a layer drops, and how many it grows; active: how many it has."""
        dropped = min(active, math.ceil(rate * active))
        return dropped, dropped

    @torch.no_grad()
    def _move(self, step: int) -> None:
        draws, rate = self._draws.at("step", step), self.rate(step + 1)
        for layer in self._layers:
            mask = self._masks[layer.name].reshape(-1)
            active = _count(mask)
            if active == mask.numel():
                continue
            moved = self._moved(layer, mask, self._amounts(active, rate), draws.at(layer.name))
            stayed = _count(mask & moved)
            self._counts["dropped"] += active - stayed
            self._counts["grown"] += _count(moved) - stayed
            self._masks[layer.name] = moved.reshape(layer.parameter.shape)
        self._counts["updates"] += 1
        self._slopes = {}

    def _moved(self, layer: Target, mask: Tensor, amounts: tuple[int, int], draws: Draws) -> Tensor:
        dropped, grown = amounts
        size = layer.parameter.detach().reshape(-1).abs().masked_fill(~mask, -1.0)
        kept = best_of_each({"layer": size}, {"layer": _count(mask) - dropped})["layer"]
        free = mask.numel() - _count(kept)
        return kept | self._grow(kept, min(grown, free), self._slopes.get(layer.name, size), draws)


def known(horizon: Horizon | None) -> Horizon:
    """Return the horizon; raises ConfigError where the owner of the loop did not say how long training is."""
    if horizon is not None:
        return horizon
    raise ConfigError(
        "epochs",
        expected="the length of training, by which this method paces itself",
        got="nothing",
        remedy="give epochs=... and steps_per_epoch=... (len(loader)) to sparsify",
    )


def check_growth(growth: str) -> None:
    """Raise ConfigError for a growth that no name means."""
    if growth not in GROWTHS:
        raise ConfigError(
            "method.growth", expected=f"one of {', '.join(GROWTHS)}", got=repr(growth), remedy="choose one of them"
        )


def check_every(field: str, every: int | None) -> None:
    """Raise ConfigError for a number of steps below 1."""
    if every is not None and every < 1:
        raise ConfigError(field, expected="at least 1 step", got=every, remedy="write 100 for every 100 steps")


def check_share(field: str, share: float) -> None:
    """Raise ConfigError for a share outside [0, 1]."""
    if not 0.0 <= share <= 1.0:
        raise ConfigError(field, expected="a share in [0, 1]", got=share, remedy="write 0.3 for 30 %")


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _slopes(layer: Target) -> Tensor:
    gradient = layer.parameter.grad
    if gradient is None:
        return torch.zeros(layer.size, device=layer.parameter.device)
    return gradient.detach().reshape(-1).abs()
