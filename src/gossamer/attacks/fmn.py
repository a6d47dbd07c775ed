"""Where is the nearest adversarial example in linf? Fast minimum norm (Pintor et al., NeurIPS 2021).

The perturbation is moved by SGD, whose settings may be tuned for a model, as HO-FMN does (pralab/HO-FMN).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal, LossName, check_goal, input_gradient
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import per_image
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class LinfFMN:
    """Descends on -loss inside a ball that shrinks while the model errs and grows while it does not.

    A step moves delta by SGD on the sign of the gradient, `lr` falling to 0 by a cosine, with momentum, weight decay
    and dampening as in torch.optim.SGD; projects it on the ball of eps_t and clips it into the box. eps_t is without
    bound until the model errs for the first time; then eps <- min(eps (1 - g), smallest norm found) where it errs,
    eps (1 + g) where not, g falling by a cosine from `gamma` to `gamma_final`. The point after the last step is
    judged too with judge_final (one more forward; the published code leaves it out).

    It draws nothing. Raises ConfigError for impossible fields.
    """

    steps: int = 200
    lr: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    dampening: float = 0.0
    loss: LossName = "dlr"
    gamma: float = 0.05
    gamma_final: float = 0.001
    judge_final: bool = True

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_goal(self.loss, "true", None)
        ranges = {"lr": math.inf, "momentum": 1, "weight_decay": math.inf, "dampening": 1, "gamma": 1, "gamma_final": 1}
        for name, end in ranges.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value < end) or (name == "lr" and value == 0):
                raise ConfigError(
                    f"attack {name}", expected=f"a number in [0, {end:g})", got=value, remedy="leave it at its default"
                )

    @property
    def norm(self) -> Literal["linf"]:
        """What is small."""
        return "linf"

    def smallest(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return the nearest points found at which the model errs, x where none, for x: (N, C, H, W), y: (N,)."""
        goal = Goal(loss=self.loss, labels=y)
        bound = torch.maximum(x, 1 - x).flatten(1).amax(dim=1)
        delta, velocity = torch.zeros_like(x), torch.zeros_like(x)
        best, nearest = x.clone(), bound.clone()
        found = torch.zeros_like(y, dtype=torch.bool)
        eps = torch.full_like(bound, torch.inf)
        for step in range(self.steps):
            gradient, _, logits = input_gradient(model, x + delta, goal)
            errs, distance = goal.reached(logits), delta.abs().flatten(1).amax(dim=1)
            best, nearest = _keep(x + delta, distance, errs, best, nearest)
            found = found | errs
            gamma = self.gamma_final + (self.gamma - self.gamma_final) * _cosine(step, self.steps)
            grown = torch.where(found, eps * (1 + gamma), torch.full_like(eps, torch.inf))
            eps = torch.where(errs, torch.minimum(eps * (1 - gamma), nearest), grown).minimum(bound)
            descent = self.weight_decay * delta - gradient.sign()
            velocity = descent if step == 0 else self.momentum * velocity + self._fresh * descent
            delta = delta - self.lr * _cosine(step, self.steps) * velocity
            delta = torch.minimum(torch.maximum(delta, -per_image(eps, x)), per_image(eps, x))
            delta = (x + delta).clamp(0, 1) - x
        if self.judge_final:
            with torch.no_grad():
                errs = goal.reached(model(x + delta))
            best, _ = _keep(x + delta, delta.abs().flatten(1).amax(dim=1), errs, best, nearest)
        return best

    @property
    def _fresh(self) -> float:
        # Without momentum, torch.optim.SGD dampens nothing.
        return 1 - self.dampening if self.momentum else 1.0


def _keep(points: Tensor, distance: Tensor, errs: Tensor, best: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    nearer = errs & (distance < nearest)
    return torch.where(per_image(nearer, points), points, best), torch.where(nearer, distance, nearest)


def _cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2
