"""How far does chance get? Random points of the ball, without a look at the model's gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class RandomNoise:
    """The first of `tries` random points at which the model errs: by turns anywhere in the ball and on its boundary."""

    threat: ThreatModel
    tries: int

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        best, left = x.clone(), torch.arange(len(x), device=x.device)
        for attempt in range(self.tries):
            best[left] = self._point(x[left], attempt, draws.select(left).at("try", attempt))
            with torch.no_grad():
                left = left[model(best[left]).argmax(dim=1) == y[left]]
            if not len(left):
                break
        return best

    def _point(self, x: Tensor, attempt: int, draws: Draws) -> Tensor:
        if attempt % 2 == 0:
            return self.threat.random_start(x, draws)
        direction = draws.normal(x.shape, device=x.device).to(x.dtype)
        return self.threat.project(x + self.threat.steepest(direction, x, size=self.threat.eps), x)
