"""The fast gradient sign method (Goodfellow et al., ICLR 2015): one steepest step of length eps."""

from dataclasses import dataclass

from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO, Labels, LossName, check_goal, input_gradient, make_goal
from gossamer.attacks.targets import Target
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """x + eps * steepest(grad loss(x)), projected; no random start (for that, PGD with steps=1).

    loss: ce, dlr or margin; kl has no gradient at x and is refused. labels, target: as in PGD.
    """

    threat: ThreatModel
    loss: LossName = "ce"
    labels: Labels = "true"
    target: Target | None = None

    def __post_init__(self) -> None:
        check_goal(self.loss, self.labels, self.target)
        if self.loss == "kl":
            raise ConfigError(
                "FGSM loss",
                expected="ce, dlr or margin",
                got="kl, whose gradient is 0 at the clean image",
                remedy="write ce, or use pgd with start gaussian(0.001)",
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        goal = make_goal(model, x, y, loss=self.loss, labels=self.labels, target=self.target)
        gradient, _, _ = input_gradient(model, x, goal)
        return self.threat.project(x + self.threat.steepest(gradient, x, size=self.threat.eps), x)
