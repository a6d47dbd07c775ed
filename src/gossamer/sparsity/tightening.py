"""ADMM whose set and adversary tighten while the network trains: radius, attack steps and density, epoch by epoch.

Source: Marshall, "Robust Convolutional Neural Networks with Resource Constraints", 2020, algorithm 1 and section 3.1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.seeding import Draws
from gossamer.sparsity.admm import ADMM, Interval
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.sets import ConstraintSet


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What holds in one epoch; eps: in pixel units of [0, 1], steps: of the attack; None: the attack's own."""

    eps: float | None
    steps: int | None
    density: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sequences: eps rises in equal stages, steps rise within each and begin anew with the next, density falls.

    epochs: how long the plan is; eps: of each stage, empty: the attack's own; steps: within a stage, one value for
    `hold` epochs, the last one to its end, empty: the attack's own; density: of the position as a share of the plan.
    """

    epochs: int
    eps: Sequence[float]
    steps: Sequence[int]
    hold: int
    density: Callable[[float], float]

    def at(self, position: int) -> Setting:
        """Return what holds at a position of the plan; behind its end, what held last."""
        position = min(position, self.epochs - 1)
        stages = max(1, len(self.eps))
        stage = position * stages // self.epochs
        within = position - math.ceil(stage * self.epochs / stages)
        return Setting(
            eps=self.eps[stage] if self.eps else None,
            steps=self.steps[min(within // self.hold, len(self.steps) - 1)] if self.steps else None,
            density=self.density(position / max(1, self.epochs - 1)),
        )


class TightenedADMM(ADMM):
    """ADMM onto a set of falling density, with the settings of each epoch's attack.

    plan: the sequences; bound: None moves on along the plan every epoch; a share moves on only after an epoch whose
    adversarial loss was no more than that share above that of the epoch before.
    """

    def __init__(
        self,
        *,
        density: float,
        constraint: ConstraintSet,
        rho: float,
        interval: Interval,
        plan: Plan,
        bound: float | None = None,
    ) -> None:
        super().__init__(
            density=density, constraint=constraint, rho=rho, interval=interval, dual_first=True, ships=True
        )
        self._plan = plan
        self._bound = bound
        self._position = 0
        self._loss = math.nan
        self._told: dict[str, float] = {}
        self._steps_per_epoch: int | None = None

    @property
    def setting(self) -> Setting:
        """What holds in the present epoch."""
        return self._plan.at(self._position)

    @property
    def present_density(self) -> float:
        """The density of the set that Z lies in now."""
        return self.setting.density

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Start from the projection of the weights as they stand, and U = 0."""
        super().attach(model, draws, horizon)
        self._steps_per_epoch = None if horizon is None else horizon.steps_per_epoch

    def due(self, done: int) -> bool:
        """Return whether Z and U move, W is brought into the set, or an epoch ends, after which the set tightens."""
        return super().due(done) or (self._steps_per_epoch is not None and done % self._steps_per_epoch == 0)

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Note what held and what came of it, and move on along the plan."""
        setting = self.setting
        told = {"eps": setting.eps, "steps": setting.steps, "density": setting.density}
        told |= {name: metrics.get(name) for name in ("adversarial_loss", "natural_loss")}
        self._told = {name: float(value) for name, value in told.items() if value is not None}
        loss = metrics.get("adversarial_loss")
        loss = metrics.get("loss") if loss is None else loss
        loss = math.nan if loss is None else loss
        # Nothing is worse than an unknown loss: the first epoch moves on.
        if self._bound is None or not loss > self._loss * (1.0 + self._bound):
            self._position += 1
            self.splitting.project(self._drawn(), self._project)
        self._loss = loss

    def measures(self) -> Mapping[str, float]:
        """Return the settings of the epoch that ended and its losses, rho and the gap."""
        return {**super().measures(), **self._told}

    def state_dict(self) -> dict[str, Tensor]:
        """Return Z, U and rho, the position and the last loss."""
        moving = {"position": self._position, "loss": self._loss}
        return {**super().state_dict(), **{k: torch.tensor(v, dtype=torch.float64) for k, v in moving.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take everything back."""
        super().load_state_dict(state)
        self._position, self._loss = int(state["position"]), float(state["loss"])
