"""N-FGSM (de Jorge et al., NeurIPS 2022): one step from far noise, never clipped to the ball; for training alone."""

import math
from dataclasses import dataclass

from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO, Labels, LossName, check_goal, input_gradient, make_goal
from gossamer.attacks.steps import WHOLE, StepRule
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class NoisyFGSM:
    """x_n + step * sign(grad loss(x_n)), x_n = x + U(-noise * eps, noise * eps), both clipped to [0, 1] (section 4).

    noise: in units of eps (published: 2); step: published eps. clip: radius in units of eps of the ball around x that
    the outcome is brought back to; None, as published, leaves it up to noise * eps + step away, outside of the threat:
    an evaluation then counts no such point. In l2 and l1, noise is uniform in the ball of noise * eps. Raises
    ConfigError.
    """

    threat: ThreatModel
    noise: float = 2.0
    step: StepRule = WHOLE
    clip: float | None = None
    loss: LossName = "ce"
    labels: Labels = "true"

    def __post_init__(self) -> None:
        check_goal(self.loss, self.labels, None)
        for name, value in (("noise", self.noise), ("clip", 1.0 if self.clip is None else self.clip)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(
                    f"N-FGSM {name}", expected="a number above 0, in units of eps", got=value, remedy="write 2"
                )

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,); in the box, perhaps outside of the ball."""
        goal = make_goal(model, x, y, loss=self.loss, labels=self.labels, target=None)
        noisy = self._ball(self.noise).random_start(x.detach(), draws)
        gradient, _, _ = input_gradient(model, noisy, goal)
        size = self.step.size(self.threat.eps, 1)
        moved = (noisy + self.threat.steepest(gradient, noisy, size=size)).clamp_(0, 1)
        return moved if self.clip is None else self._ball(self.clip).project(moved, x)

    def _ball(self, factor: float) -> ThreatModel:
        return ThreatModel(self.threat.norm, factor * self.threat.eps)
