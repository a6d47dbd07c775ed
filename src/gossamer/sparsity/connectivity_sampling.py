"""Bayesian connectivity sampling: signs fixed, magnitudes learned, connections that die are drawn anew elsewhere.

Source: Ozdenizci & Legenstein, "Training Adversarially Robust Sparse Networks via Bayesian Connectivity
Sampling", ICML 2021, with its supplement and released code; parent: Bellec et al., "Deep Rewiring", ICLR 2018.

Every prunable weight is w = S * theta where theta > 0, else 0; S in {-1, +1} never changes. A weight is active iff
theta > 0. After each optimiser step, Gaussian noise of standard deviation lr * sigma moves the weights that were
active before it, and where fewer than K = int(density * N) remain, layers are drawn in proportion to their size
and dormant weights of them, uniformly, are set to theta = 1e-12.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import check_density, total_budget
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon
from gossamer.sparsity.targets import Target, fan_in, flat

REVIVED = 1e-12
# The standard deviation of a normal distribution cut at two standard deviations, in units of the uncut one.
TRUNCATION = 0.87962566103423978


class Signed(nn.Module):
    """Parametrization w = S * max(theta, 0); the gradient at theta: S * dL/dw where theta > 0, exactly 0 elsewhere."""

    sign: Tensor

    def __init__(self, sign: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", sign)

    def forward(self, theta: Tensor) -> Tensor:
        """Return the effective weight of theta, in its shape."""
        return torch.relu(theta) * self.sign


class ConnectivitySampling(NoSparsifier):
    """The sparsifier of Bayesian connectivity sampling.

    density: share of all prunable weights kept, p_c; sigma: noise per unit learning rate; initial: patterns of
    layer names and the share of weights each starts with, first match wins (layers without one start with
    p_c / 2); strict: scale the initial shares down where they exceed the budget, and trim self-revived surplus
    at the end, so that the budget is exact; reset_velocity: forget the velocity of a drawn weight (an ablation;
    the published code keeps it); every_pattern_matches: refuse a pattern of `initial` that matches no layer.
    """

    def __init__(
        self,
        *,
        density: float,
        sigma: float = 1e-6,
        initial: Mapping[str, float] | None = None,
        strict: bool = False,
        reset_velocity: bool = False,
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
        self._every_pattern_matches = every_pattern_matches
        self._draws = Draws()
        self._was_active: list[Tensor] = []
        self._rate = 0.0
        self._counts = {"revived": 0.0, "self_revived": 0.0, "died": 0.0}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Draw theta and signs, and register the parametrization on every prunable kernel."""
        super().attach(model, draws, horizon)
        self._draws = draws
        sizes = {layer.name: layer.size for layer in self._layers}
        self.budget = total_budget(sizes, self.density)
        counts = self.initial_counts(sizes)
        for layer in self._layers:
            sign = self._draw_sign(layer)
            theta = self._draw_theta(layer, counts[layer.name])
            parametrize.register_parametrization(layer.module, "weight", Signed(sign))
            with torch.no_grad():
                layer.parameter.copy_(theta)

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
        """Record which weights are active, and the learning rate, before the update."""
        del step
        self._rate = float(optimizer.param_groups[0]["lr"])
        self._was_active = [layer.parameter.detach() > 0 for layer in self._layers]

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Add noise to the weights that were active before the update, then draw new connections."""
        draws = self._draws.at("step", step)
        with torch.no_grad():
            self._add_noise(draws)
            self._rewire(draws, optimizer)

    def measures(self) -> Mapping[str, float]:
        """Return how many connections died, were drawn, and came back by themselves since the last call."""
        counted = dict(self._counts)
        self._counts = dict.fromkeys(self._counts, 0.0)
        return counted

    @property
    def active(self) -> int:
        """Number of active weights of the whole network."""
        return sum(int((layer.parameter > 0).sum()) for layer in self._layers)

    def masks(self) -> Masks:
        """Return the active weights."""
        return Masks({layer.name: layer.parameter.detach() > 0 for layer in self._layers})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy; in strict mode the smallest self-revived surplus is dropped first."""
        masks = self.masks()
        if self._strict and masks.kept > self.budget:
            masks = self._largest()
        return finalise(model, masks)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counters; theta and signs are in the model."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self._counts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the counters back."""
        self._counts = {name: float(value) for name, value in state.items()}

    def _initial_share(self, name: str) -> float:
        for pattern, share in self._initial.items():
            if fnmatchcase(name, pattern):
                return share
        return self.density / 2

    def _draw_sign(self, layer: Target) -> Tensor:
        weight = layer.weight
        normal = self._draws.at("sign", layer.name).normal(weight.shape)
        return torch.where(normal < 0, -1.0, 1.0).to(weight.device)

    def _draw_theta(self, layer: Target, count: int) -> Tensor:
        """Return |truncated He-normal| at `count` uniformly chosen positions, exactly 0 elsewhere."""
        weight = layer.weight
        std = math.sqrt(2.0 / fan_in(weight)) / TRUNCATION
        theta = torch.empty(weight.shape)
        nn.init.trunc_normal_(
            theta, std=std, a=-2 * std, b=2 * std, generator=self._draws.at("theta", layer.name).generator()
        )
        chosen = torch.randperm(theta.numel(), generator=self._draws.at("initial", layer.name).generator())
        mask = torch.zeros(theta.numel())
        mask[chosen[:count]] = 1.0
        return (theta.abs() * mask.reshape(theta.shape)).to(weight.device)

    def _add_noise(self, draws: Draws) -> None:
        scale = self._rate * self._sigma
        for layer, was_active in zip(self._layers, self._was_active, strict=True):
            theta = layer.parameter
            positions = flat(was_active).nonzero().flatten()
            generator = draws.at("noise", layer.name).generator(theta.device)
            noise = torch.randn(positions.numel(), generator=generator, device=theta.device)
            flat(theta).index_add_(0, positions, noise, alpha=scale)

    def _rewire(self, draws: Draws, optimizer: Optimizer) -> None:
        active = [layer.parameter > 0 for layer in self._layers]
        counts = torch.stack([mask.sum() for mask in active]).tolist()
        self._count_changes(active)
        missing = self.budget - sum(counts)
        if missing <= 0:
            return
        free = [layer.size - count for layer, count in zip(self._layers, counts, strict=True)]
        shares = draw_layers([layer.size for layer in self._layers], free, missing, draws.at("layers"))
        for layer, mask, share in zip(self._layers, active, shares, strict=True):
            if share:
                generator = draws.at("connections", layer.name).generator(layer.parameter.device)
                self._revive(layer, draw_dormant(flat(mask), share, generator), optimizer)
        self._counts["revived"] += missing

    def _count_changes(self, active: list[Tensor]) -> None:
        pairs = list(zip(active, self._was_active, strict=True))
        self._counts["self_revived"] += sum(int((now & ~before).sum()) for now, before in pairs)
        self._counts["died"] += sum(int((before & ~now).sum()) for now, before in pairs)

    def _revive(self, layer: Target, positions: Tensor, optimizer: Optimizer) -> None:
        flat(layer.parameter)[positions] = REVIVED
        velocity = optimizer.state.get(layer.parameter, {}).get("momentum_buffer")
        if self._reset_velocity and velocity is not None:
            flat(velocity)[positions] = 0.0

    def _largest(self) -> Masks:
        thetas = [layer.parameter.detach() for layer in self._layers]
        joined = torch.cat([theta.reshape(-1) for theta in thetas])
        order = torch.sort(joined, descending=True, stable=True).indices[: self.budget]
        kept = torch.zeros_like(joined, dtype=torch.bool)
        kept[order] = True
        parts = kept.split([theta.numel() for theta in thetas])
        return Masks(
            {
                layer.name: part.reshape(theta.shape)
                for layer, part, theta in zip(self._layers, parts, thetas, strict=True)
            }
        )


def draw_layers(sizes: list[int], free: list[int], missing: int, draws: Draws) -> list[int]:
    """Return how many connections each layer is given: i.i.d. draws in proportion to layer size, not to free slots.

    Where a layer is drawn more often than it has free slots, the rest is drawn again among the others (the
    published code would stop there).
    """
    shares = [0] * len(sizes)
    attempt = 0
    while missing > 0:
        room = [slots - share for slots, share in zip(free, shares, strict=True)]
        weights = torch.tensor(
            [size if slots > 0 else 0 for size, slots in zip(sizes, room, strict=True)], dtype=torch.float64
        )
        generator = draws.at(attempt).generator()
        drawn = torch.multinomial(weights, missing, replacement=True, generator=generator)
        asked = torch.bincount(drawn, minlength=len(sizes)).tolist()
        given = [min(wish, slots) for wish, slots in zip(asked, room, strict=True)]
        shares = [share + more for share, more in zip(shares, given, strict=True)]
        missing -= sum(given)
        attempt += 1
    return shares


def draw_dormant(active: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` distinct positions, uniform among those not active; active: (n,) bool with room for them."""
    n = active.numel()
    # Most positions are dormant, so trying random ones is far cheaper than listing them all.
    tries = torch.randint(n, (2 * count + 16,), generator=generator, device=active.device)
    found = torch.unique(tries[~active[tries]])
    if found.numel() < count:
        found = (~active).nonzero().flatten()
    # A set of distinct uniform draws is exchangeable, so a random part of it is a uniform choice.
    order = torch.randperm(found.numel(), generator=generator, device=active.device)
    return found[order[:count]]
