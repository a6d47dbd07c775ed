"""How often may any attack try anew? Restarts around it, of which each image keeps the worst."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal
from gossamer.attacks.restarts import worst_of_restarts
from gossamer.attacks.stepwise import Rows
from gossamer.attacks.wrapping import Wrapper
from gossamer.seeding import Draws
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class Restarts(Wrapper):
    """Any attack `restarts` times with draws of its own each time.

    Called as an attack, it returns for each image a misclassified point where there is one, then that of the
    largest margin; with early_drop, misclassified images are spared the rest. Raises ConfigError for impossible
    fields.
    """

    restarts: int = 10
    early_drop: bool = True

    def __post_init__(self) -> None:
        check_count("attack restarts", self.restarts)

    def attempts(self, classes: int) -> int:
        """Return the attempts inside times the restarts."""
        return self.restarts * self.inner.attempts(classes)

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows at the attempt that it is inside its restart; draws tell the restarts apart."""
        inside = self.inner.attempts(clean.shape[1])
        return self.inner.begin(x, y, clean, attempt % inside, draws)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""

        def attempt(images: Tensor, goal: Goal, at: Draws) -> Tensor:
            with torch.enable_grad():
                return self.attack(model, images, goal.labels, draws=at)

        goal = Goal(loss="margin", labels=y)
        return worst_of_restarts(
            model, attempt, x, goal, restarts=self.restarts, early_drop=self.early_drop, draws=draws
        )
