"""Deep Rewiring: gradient, noise and a drift to zero move magnitudes; what dies is drawn anew elsewhere, or revives.

Source: Bellec et al., "Deep Rewiring: Training very sparse deep networks", ICLR 2018, and its released code. Weights
are signed (`gossamer.sparsity.signed`). After the gradient's step the active ones move by lr * (sigma * nu - l1),
nu ~ N(0, 1): the paper's -eta * alpha + sqrt(2 eta T) * nu at alpha = l1 and T = lr * sigma^2 / 2.
"""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import BudgetSpec, check_counts, check_density, divide
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.choose import best_of_all, best_of_each
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.protocol import BudgetContract, Horizon
from gossamer.sparsity.signed import SignedWeights, draw_layers
from gossamer.sparsity.targets import Target, fan_in, flat
from gossamer.sparsity.work import settled

Scope: TypeAlias = Literal["global", "local"]


class DeepRewiring(SignedWeights):
    """DEEP R: the number of connections is held, of every layer (`local`) or of the whole network (`global`).

    density, budget: how many connections each layer starts with (and, locally, keeps); globally, a layer is drawn in
    proportion to that number. l1: the drift alpha; sigma: noise per unit learning rate. Under a momentum, which the
    published method has not, dead connections may come back by themselves; the surplus is cut from what ships.
    Raises ConfigError.
    """

    contract: BudgetContract = "exact"

    def __init__(
        self,
        *,
        density: float,
        budget: BudgetSpec = "uniform",
        scope: Scope = "global",
        l1: float = 1e-5,
        sigma: float = 1e-5,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        check_motion(l1, sigma)
        if scope not in ("global", "local"):
            raise ConfigError("method.scope", expected="global or local", got=repr(scope), remedy="choose one of them")
        self._budget = make_budget(budget)
        self._scope: Scope = scope
        self._l1 = l1
        self._sigma = sigma
        self._wanted: dict[str, int] = {}

    @property
    def budget(self) -> int:
        """Number of connections of the whole network."""
        return sum(self._wanted.values())

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Draw theta and signs, and register the parametrization on every prunable kernel."""
        self._budget = settled(self._budget, model, horizon)
        super().attach(model, draws, horizon)

    def _plan(self) -> None:
        shapes = {layer.name: tuple(layer.weight.shape) for layer in self._layers}
        self._wanted = divide(self._budget, shapes, self.density)

    def _draw_theta(self, layer: Target) -> Tensor:
        """Return |N(0, 1)| / sqrt(fan-in) at the layer's count of positions, exactly 0 elsewhere."""
        places = self._draw_places(layer, self._wanted[layer.name])
        return (_normal(layer, self._draws).abs() * places).to(layer.weight.device)

    def _perturb(self, draws: Draws) -> None:
        """Move what is active after the gradient's step by noise and drift."""
        for layer in self._layers:
            theta = layer.parameter
            positions = flat(theta > 0).nonzero().flatten()
            generator = draws.at("noise", layer.name).generator(theta.device)
            noise = torch.randn(positions.numel(), generator=generator, device=theta.device)
            moved = noise.mul_(self._sigma).sub_(self._l1).to(theta.dtype)
            flat(theta).index_add_(0, positions, moved, alpha=self._rate)

    def _missing(self, active: list[int], draws: Draws) -> list[int]:
        wanted = [self._wanted[layer.name] for layer in self._layers]
        if self._scope == "local":
            return [max(0, count - here) for count, here in zip(wanted, active, strict=True)]
        free = [layer.size - here for layer, here in zip(self._layers, active, strict=True)]
        return draw_layers(wanted, free, self.budget - sum(active), draws)

    def _within_budget(self, masks: Masks) -> Masks:
        theta = {layer.name: layer.parameter.detach() for layer in self._layers}
        if self._scope == "global":
            return masks if masks.kept <= self.budget else best_of_all(theta, self.budget)
        kept = masks.kept_per_layer
        return best_of_each(theta, {name: min(kept[name], count) for name, count in self._wanted.items()})


class SoftDeepRewiring(SignedWeights):
    """Soft DEEP R: no count is held; noise moves dormant weights too, between a floor and zero, until they revive.

    density, budget: the share p of each layer's weights that starts active; rate: the learning rate whose temperature
    T = rate * sigma^2 / 2 sets the floor -(1 - p) / (p * b), b = l1 / T, at which, without a gradient, a share p
    would be active. How many are, training decides. Below sigma = 2 l1 p / (1 - p) one step's noise spans that strip:
    connections then flicker, and half of them count as active at any time. Raises ConfigError.
    """

    def __init__(
        self,
        *,
        density: float,
        budget: BudgetSpec = "uniform",
        rate: float = 0.05,
        l1: float = 1e-5,
        sigma: float = 1e-5,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        check_motion(l1, sigma)
        for field, value in (("l1", l1), ("sigma", sigma)):
            if value == 0.0:
                raise ConfigError(
                    f"method.{field}", expected="a number above 0", got=value, remedy="write 1.0e-5, as published"
                )
        self._budget = make_budget(budget)
        self._first_rate = rate
        self._l1 = l1
        self._sigma = sigma
        self._shares: dict[str, float] = {}

    def floor(self, name: str) -> float:
        """Return the least theta of a layer."""
        share = self._shares[name]
        temperature = self._first_rate * self._sigma**2 / 2
        return -(1.0 - share) / share * temperature / self._l1

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Draw theta and signs, and register the parametrization on every prunable kernel."""
        self._budget = settled(self._budget, model, horizon)
        super().attach(model, draws, horizon)

    def _plan(self) -> None:
        sizes = {layer.name: layer.size for layer in self._layers}
        counts = self._budget({layer.name: tuple(layer.weight.shape) for layer in self._layers}, self.density)
        check_counts(counts, sizes)
        # A layer without a first connection gets the floor of one that has a single one.
        self._shares = {name: max(count, 1) / sizes[name] for name, count in counts.items()}

    def _draw_theta(self, layer: Target) -> Tensor:
        """Return N(0, 1) / sqrt(fan-in), of either sign, with probability p, elsewhere U(floor, 0)."""
        shape = layer.weight.shape
        starts = self._draws.at("initial", layer.name).uniform(shape) < self._shares[layer.name]
        dormant = self._draws.at("dormant", layer.name).uniform(shape) * self.floor(layer.name)
        return torch.where(starts, _normal(layer, self._draws), dormant).to(layer.weight.device)

    def _perturb(self, draws: Draws) -> None:
        """Move everything by noise, what is active by the drift, and nothing below the floor."""
        for layer in self._layers:
            theta = flat(layer.parameter)
            generator = draws.at("noise", layer.name).generator(theta.device)
            noise = torch.randn(theta.numel(), generator=generator, device=theta.device)
            motion = noise.mul_(self._sigma).add_(theta > 0, alpha=-self._l1)
            theta.add_(motion, alpha=self._rate).clamp_(min=self.floor(layer.name))

    def _missing(self, active: list[int], draws: Draws) -> list[int]:
        return [0] * len(active)


def check_motion(l1: float, sigma: float) -> None:
    """Raise ConfigError for a drift or noise that cannot be."""
    for field, value in (("l1", l1), ("sigma", sigma)):
        if not 0.0 <= value < math.inf:
            raise ConfigError(
                f"method.{field}", expected="a finite number >= 0", got=value, remedy="write 1.0e-5, as published"
            )


def _normal(layer: Target, draws: Draws) -> Tensor:
    """Return N(0, 1) / sqrt(fan-in) in the layer's shape, on the CPU."""
    return draws.at("theta", layer.name).normal(layer.weight.shape) / math.sqrt(fan_in(layer.weight))
