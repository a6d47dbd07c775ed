"""The alternating direction method of multipliers: dense weights are drawn, while they train, towards a sparse copy.

W learns under loss + rho / 2 * ||W - Z + U||^2; now and then Z is the projection of W + U onto the set, and the dual U
gathers what separates them. U is the scaled dual: with u = rho * U the iterates are those of the Lagrangian
<u, W - Z> + rho / 2 * ||W - Z||^2. Source: Boyd et al., 2011, section 3.1.1; for pruning: Zhang et al., ECCV 2018.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.finalize import finalise, plain_copy
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import Averaged, Finalised, Horizon
from gossamer.sparsity.sets import ConstraintSet, free_layers
from gossamer.sparsity.targets import targets
from gossamer.sparsity.work import settled

Weights: TypeAlias = Mapping[str, Tensor]


class Splitting:
    """Z and U of named tensors, and rho.

    rho_factor: rho grows by it at every update, before Z and U change, and U stays as it is; dual_first: U takes in
    what separates W from the old Z before Z moves, instead of after. Raises ConfigError.
    """

    def __init__(self, rho: float, *, rho_factor: float = 1.0, dual_first: bool = False) -> None:
        for name, value in (("rho", rho), ("rho_factor", rho_factor)):
            if not 0.0 < value < math.inf:
                raise ConfigError(
                    f"method.{name}", expected="a finite number above 0", got=value, remedy="write 1.0e-3, say"
                )
        self.rho = rho
        self.copy: dict[str, Tensor] = {}
        self.dual: dict[str, Tensor] = {}
        self._rho_factor = rho_factor
        self._dual_first = dual_first

    def start(self, copy: Weights) -> None:
        """Take Z, and U = 0."""
        self.copy = {name: value.detach() for name, value in copy.items()}
        self.dual = {name: torch.zeros_like(value) for name, value in self.copy.items()}

    def penalty(self, weights: Weights) -> Tensor:
        """Return rho / 2 * ||W - Z + U||^2, a scalar with a graph; 0 where there is nothing to draw."""
        if not weights:
            return torch.zeros(())
        gaps = [(weight - self.copy[name] + self.dual[name]).square().sum() for name, weight in weights.items()]
        return self.rho / 2 * torch.stack(gaps).sum()

    @torch.no_grad()
    def update(self, weights: Weights, project: Callable[[Weights], Weights]) -> None:
        """Move rho, Z and U; project: gives the new Z of W + U."""
        self.rho *= self._rho_factor
        if self._dual_first:
            self._gather(weights)
        self.project(weights, project)
        if not self._dual_first:
            self._gather(weights)

    @torch.no_grad()
    def project(self, weights: Weights, project: Callable[[Weights], Weights]) -> None:
        """Move Z alone, to the projection of W + U."""
        self.copy = dict(project({name: weight + self.dual[name] for name, weight in weights.items()}))

    def state_dict(self) -> dict[str, Tensor]:
        """Return Z, U and rho."""
        parts = {"copy": self.copy, "dual": self.dual}
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        return {**tensors, "rho": torch.tensor(self.rho, dtype=torch.float64)}

    def load_state_dict(self, state: Weights) -> None:
        """Take Z, U and rho back, each where it was placed at the start."""
        for part, values in (("copy", self.copy), ("dual", self.dual)):
            values.update({name: torch.empty_like(old).copy_(state[f"{part}/{name}"]) for name, old in values.items()})
        self.rho = float(state["rho"])

    def _gather(self, weights: Weights) -> None:
        for name, weight in weights.items():
            self.dual[name] += weight - self.copy[name]


@dataclass(frozen=True)
class Interval:
    """How often Z and U move: every so many steps or epochs; raises ConfigError for none."""

    count: int
    unit: Literal["steps", "epochs"] = "epochs"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError("method.interval", expected="at least 1", got=self.count, remedy="write 1, say")

    def steps(self, horizon: Horizon | None) -> int:
        """Return the interval in steps; raises ConfigError where the owner of the loop did not tell an epoch's."""
        if self.unit == "steps":
            return self.count
        if horizon is None:
            raise ConfigError(
                "method.interval",
                expected="a horizon, which tells the steps of an epoch",
                got="none",
                remedy="attach with horizon=Horizon(...), or count the interval in steps",
            )
        return self.count * horizon.steps_per_epoch


class ADMM(NoSparsifier):
    """Train dense weights towards a set, onto which they are projected at last.

    constraint: the set, given a density; rho, rho_factor, dual_first: as in `Splitting`; interval: between two updates
    of Z and U. What is finalised is the projection of W onto the set; ships: the last step of the phase projects W
    itself, so that what trained and what ships are one. Of averaged weights too it is the projection that ships.
    Layers that the set keeps whole at that density have neither Z nor U: nothing draws them.
    """

    averaged: Averaged = "trainable"

    def __init__(
        self,
        *,
        density: float,
        constraint: ConstraintSet,
        rho: float,
        rho_factor: float = 1.0,
        interval: Interval,
        dual_first: bool = False,
        ships: bool = False,
    ) -> None:
        super().__init__()
        self.density = check_density(density, "method.density")
        self.contract = constraint.contract
        self.splitting = Splitting(rho, rho_factor=rho_factor, dual_first=dual_first)
        self._constraint = constraint
        self._interval = interval
        self._ships = ships
        self._steps = 0
        self._end: int | None = None
        self._free: frozenset[str] = frozenset()

    @property
    def present_density(self) -> float:
        """The density of the set that Z lies in now."""
        return self.density

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Start from the projection of the weights as they stand, and U = 0; raises ConfigError.

        The final density is tried as well: a set that cannot hold it is found out before training.
        """
        super().attach(model, draws, horizon)
        self._constraint = settled(self._constraint, model, horizon)
        self._steps = self._interval.steps(horizon)
        self._end = None if horizon is None else horizon.steps
        self._free = free_layers(self._constraint, _detached(self._weights()), self.density)
        self.splitting.start(self._project(self._drawn()))

    def penalty(self, model: nn.Module) -> Tensor:
        """Return what draws the weights towards their sparse copy."""
        return self.splitting.penalty(self._drawn())

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Move Z and U at the end of an interval; where W ships, bring it into the set at the end of the phase."""
        if self._ends_interval(step + 1):
            self.splitting.update(self._drawn(), self._project)
        if self._ends_phase(step + 1):
            _write(self._weights(), self._inside(self._weights()))

    def due(self, done: int) -> bool:
        """Return whether Z and U move, or W is brought into the set."""
        return self._ends_interval(done) or self._ends_phase(done)

    def measures(self) -> Mapping[str, float]:
        """Return rho, and how far the weights that are drawn are from their copy: ||W - Z|| / ||W||."""
        weights = self._drawn()
        if not weights:
            return {"rho": self.splitting.rho, "gap": 0.0}
        with torch.no_grad():
            gaps = [(weight - self.splitting.copy[name]).square().sum() for name, weight in weights.items()]
            norms = [weight.square().sum() for weight in weights.values()]
            gap = float((torch.stack(gaps).sum() / torch.stack(norms).sum().clamp(min=1e-30)).sqrt())
        return {"rho": self.splitting.rho, "gap": gap}

    def masks(self) -> Masks:
        """Return what the sparse copy keeps, and all of a layer without one."""
        whole = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self._weights().items()}
        return Masks({**whole, **{name: value != 0 for name, value in self.splitting.copy.items()}})

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy, projected onto the set at the final density."""
        module = plain_copy(model)
        layers = targets(module)
        with torch.no_grad():
            weights = {layer.name: layer.parameter for layer in layers}
            _write(weights, self._inside(weights))
        return finalise(module)

    def state_dict(self) -> dict[str, Tensor]:
        """Return Z, U and rho."""
        return self.splitting.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take Z, U and rho back."""
        self.splitting.load_state_dict(state)

    def _ends_interval(self, done: int) -> bool:
        return done % self._steps == 0

    def _ends_phase(self, done: int) -> bool:
        return self._ships and done == self._end

    def _weights(self) -> dict[str, Tensor]:
        return {layer.name: layer.parameter for layer in self._layers}

    def _drawn(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self._weights().items() if name not in self._free}

    def _project(self, weights: Weights) -> dict[str, Tensor]:
        """Return the projection of the drawn weights; the others count in what the set divides."""
        inside = self._constraint(_detached({**self._weights(), **weights}), self.present_density)
        return {name: inside[name] for name in weights}

    def _inside(self, weights: Weights) -> dict[str, Tensor]:
        return self._constraint(_detached(weights), self.density)


def _detached(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in weights.items()}


@torch.no_grad()
def _write(weights: Weights, values: Weights) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
