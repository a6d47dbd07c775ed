"""Weights of fixed sign and learned magnitude, whose connections die at zero and are drawn anew elsewhere.

Every prunable weight is w = S * theta where theta > 0, else 0; S in {-1, +1} never changes. A weight is active iff
theta > 0. This is what Deep Rewiring (Bellec et al., ICLR 2018) and Bayesian connectivity sampling (Ozdenizci &
Legenstein, ICML 2021) share.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon
from gossamer.sparsity.targets import Target, flat

REVIVED = 1e-12


class Signed(nn.Module):
    """Parametrization w = S * max(theta, 0); the gradient at theta: S * dL/dw where theta > 0, exactly 0 elsewhere."""

    sign: Tensor

    def __init__(self, sign: Tensor) -> None:
        super().__init__()
        self.register_buffer("sign", sign)

    def forward(self, theta: Tensor) -> Tensor:
        """Return the effective weight of theta, in its shape."""
        return torch.relu(theta) * self.sign


class SignedWeights(NoSparsifier, ABC):
    """What sparsifiers of signed weights share; one of them says how theta begins, moves by itself, and is redrawn.

    An optimiser that holds the weights trains theta.
    """

    contract: BudgetContract = "reported"

    def __init__(self) -> None:
        super().__init__()
        self._draws = Draws()
        self._was_active: list[Tensor] = []
        self._rate = 0.0
        self._reset_velocity = False
        self._counts = {"revived": 0.0, "self_revived": 0.0, "died": 0.0}

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Draw theta and signs, and register the parametrization on every prunable kernel."""
        super().attach(model, draws, horizon)
        self._draws = draws
        self._plan()
        for layer in self._layers:
            sign = self._draw_sign(layer)
            theta = self._draw_theta(layer)
            parametrize.register_parametrization(layer.module, "weight", Signed(sign))
            with torch.no_grad():
                layer.parameter.copy_(theta)

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Record which weights are active, and the learning rate, before the update."""
        self._rate = float(optimizer.param_groups[0]["lr"])
        self._was_active = [layer.parameter.detach() > 0 for layer in self._layers]

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Move theta by noise and drift, then draw connections where some are missing."""
        draws = self._draws.at("step", step)
        with torch.no_grad():
            self._perturb(draws)
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
        """Return a plain copy; the smallest surplus over an exact budget is dropped first."""
        return finalise(model, self._within_budget(self.masks()))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the counters; theta and signs are in the model."""
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self._counts.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the counters back."""
        self._counts = {name: float(value) for name, value in state.items()}

    def _plan(self) -> None:
        """Count what the layers hold; raises ConfigError for a budget that cannot be."""

    @abstractmethod
    def _draw_theta(self, layer: Target) -> Tensor:
        """Return the first theta of a layer, in its shape, on its device."""

    @abstractmethod
    def _perturb(self, draws: Draws) -> None:
        """Move theta by what is not the optimiser's: noise, and drift towards zero."""

    @abstractmethod
    def _missing(self, active: list[int], draws: Draws) -> list[int]:
        """Return how many connections each layer is to be given; active: how many each has."""

    def _within_budget(self, masks: Masks) -> Masks:
        return masks

    def _draw_sign(self, layer: Target) -> Tensor:
        weight = layer.weight
        normal = self._draws.at("sign", layer.name).normal(weight.shape)
        return torch.where(normal < 0, -1.0, 1.0).to(weight.device)

    def _draw_places(self, layer: Target, count: int) -> Tensor:
        """Return 1 at `count` uniformly chosen positions, 0 elsewhere, in the layer's shape, on the CPU."""
        chosen = torch.randperm(layer.size, generator=self._draws.at("initial", layer.name).generator())
        mask = torch.zeros(layer.size)
        mask[chosen[:count]] = 1.0
        return mask.reshape(layer.weight.shape)

    def _rewire(self, draws: Draws, optimizer: Optimizer) -> None:
        active = [layer.parameter > 0 for layer in self._layers]
        self._count_changes(active)
        shares = self._missing(torch.stack([mask.sum() for mask in active]).tolist(), draws.at("layers"))
        for layer, mask, share in zip(self._layers, active, shares, strict=True):
            if share:
                generator = draws.at("connections", layer.name).generator(layer.parameter.device)
                self._revive(layer, draw_dormant(flat(mask), share, generator), optimizer)
        self._counts["revived"] += sum(shares)

    def _count_changes(self, active: list[Tensor]) -> None:
        pairs = list(zip(active, self._was_active, strict=True))
        self._counts["self_revived"] += sum(int((now & ~before).sum()) for now, before in pairs)
        self._counts["died"] += sum(int((before & ~now).sum()) for now, before in pairs)

    def _revive(self, layer: Target, positions: Tensor, optimizer: Optimizer) -> None:
        flat(layer.parameter)[positions] = REVIVED
        velocity = optimizer.state.get(layer.parameter, {}).get("momentum_buffer")
        if self._reset_velocity and velocity is not None:
            flat(velocity)[positions] = 0.0


def draw_layers(sizes: list[int], free: list[int], missing: int, draws: Draws) -> list[int]:
    """Return how many connections each layer is given: i.i.d. draws in proportion to `sizes`, not to free slots.

    Where a layer is drawn more often than it has free slots, the rest is drawn again among the others (the
    published codes would stop there, or lose it).
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
