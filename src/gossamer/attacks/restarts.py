"""Which of several attempts at an image is kept? The worst: one that reaches the goal, then the highest loss."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.attacks.goals import Goal
from gossamer.seeding import Draws
from gossamer.threat import per_image
from gossamer.types import Model

Attempt: TypeAlias = Callable[[Tensor, Goal, Draws], Tensor]


def worst_of_restarts(
    model: Model, attempt: Attempt, x: Tensor, goal: Goal, *, restarts: int, early_drop: bool, draws: Draws
) -> Tensor:
    """Return the worst of `restarts` attempts for each image of x: (N, C, H, W).

    Restart r draws from draws.at("restart", r), so more restarts only add attempts. With `early_drop`, images
    whose goal is reached leave the batch; with draws keyed by sample the others do not notice.
    """
    worst = attempt(x, goal, draws.at("restart", 0))
    if restarts == 1:
        return worst
    reached, value = _judge(model, worst, goal)
    for restart in range(1, restarts):
        here = draws.at("restart", restart)
        left = (~reached).nonzero().flatten() if early_drop else None
        if left is None:
            found = attempt(x, goal, here)
            found_reached, found_value = _judge(model, found, goal)
        elif left.numel() == 0:
            break
        else:
            found, found_reached, found_value = worst.clone(), reached.clone(), value.clone()
            found[left] = attempt(x[left], goal.select(left), here.select(left))
            found_reached[left], found_value[left] = _judge(model, found[left], goal.select(left))
        worse = (found_reached & ~reached) | ((found_reached == reached) & (found_value > value))
        worst = torch.where(per_image(worse, x), found, worst)
        reached, value = reached | found_reached, torch.where(worse, found_value, value)
    return worst


def _judge(model: Model, x_adv: Tensor, goal: Goal) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits = model(x_adv)
        return goal.reached(logits), goal.value(logits)
