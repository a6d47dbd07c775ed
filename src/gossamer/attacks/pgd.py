"""Projected gradient ascent (Madry et al., ICLR 2018), as published training and evaluation attacks use it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal, Labels, LossName, check_goal, input_gradient, make_goal
from gossamer.attacks.restarts import worst_of_restarts
from gossamer.attacks.starts import RANDOM, Start
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.attacks.targets import Target
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model

Returns: TypeAlias = Literal["last", "best", "first"]


@dataclass(frozen=True, kw_only=True)
class PGD:
    """x_{t+1} = project(x_t + size * steepest(grad loss(x_t))), `steps` times, from `restarts` starts.

    step: the length rule; start: where x_0 lies. loss: ce, kl (from the clean prediction, as in TRADES), dlr or
    margin. labels: true, or predicted on x. target: drives to classes instead of away from the label.
    returns: last, the final iterate; best, the highest loss among x_0 .. x_{steps-1}, and the final one too with
    judge_final (one more forward); first, the first iterate that reaches the goal, else the final one.
    early_drop (evaluation only; waits for the device): what has reached the goal leaves the batch, between
    restarts, and between steps where returns is first.

    One step is one forward and one backward of the batch. Raises ConfigError for impossible fields.
    """

    threat: ThreatModel
    steps: int = 10
    step: StepRule = QUARTER
    start: Start = RANDOM
    restarts: int = 1
    loss: LossName = "ce"
    labels: Labels = "true"
    target: Target | None = None
    returns: Returns = "last"
    judge_final: bool = True
    early_drop: bool = False

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_count("attack restarts", self.restarts)
        check_goal(self.loss, self.labels, self.target)
        if self.returns not in get_args(Returns):
            raise ConfigError(
                "attack returns",
                expected=f"one of {', '.join(get_args(Returns))}",
                got=repr(self.returns),
                remedy="write last for the final iterate",
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        goal = make_goal(model, x, y, loss=self.loss, labels=self.labels, target=self.target)

        def attempt(images: Tensor, towards: Goal, at: Draws) -> Tensor:
            return _ATTEMPTS[self.returns](self, model, images, towards, at)

        return worst_of_restarts(
            model, attempt, x, goal, restarts=self.restarts, early_drop=self.early_drop, draws=draws
        )

    @property
    def size(self) -> float:
        """The step in pixel units of [0, 1]."""
        return self.step.size(self.threat.eps, self.steps)


def _climb_to_last(attack: PGD, model: Model, x: Tensor, goal: Goal, draws: Draws) -> Tensor:
    project, size = attack.threat.projector(x), attack.size
    x_adv = attack.start(attack.threat, x, draws)
    for _ in range(attack.steps):
        gradient, _, _ = input_gradient(model, x_adv, goal)
        x_adv = project(attack.threat.steepest(gradient, x_adv, size=size).add_(x_adv))
    return x_adv


def _climb_to_best(attack: PGD, model: Model, x: Tensor, goal: Goal, draws: Draws) -> Tensor:
    project, size = attack.threat.projector(x), attack.size
    x_adv = best = attack.start(attack.threat, x, draws)
    highest = x.new_full(x.shape[:1], -torch.inf, dtype=torch.float32)
    for _ in range(attack.steps):
        gradient, value, _ = input_gradient(model, x_adv, goal)
        best, highest = _keep_higher(best, highest, x_adv, value)
        x_adv = project(attack.threat.steepest(gradient, x_adv, size=size).add_(x_adv))
    if attack.judge_final:
        with torch.no_grad():
            best, _ = _keep_higher(best, highest, x_adv, goal.value(model(x_adv)))
    return best


def _keep_higher(best: Tensor, highest: Tensor, x_adv: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(per_image(value > highest, x_adv), x_adv, best), torch.maximum(highest, value)


def _climb_to_first(attack: PGD, model: Model, x: Tensor, goal: Goal, draws: Draws) -> Tensor:
    if attack.early_drop:
        return _climb_to_first_dropping(attack, model, x, goal, draws)
    project, size = attack.threat.projector(x), attack.size
    x_adv = attack.start(attack.threat, x, draws)
    done = torch.zeros(x.shape[:1], dtype=torch.bool, device=x.device)
    for _ in range(attack.steps):
        gradient, _, logits = input_gradient(model, x_adv, goal)
        done = done | goal.reached(logits)
        moved = project(attack.threat.steepest(gradient, x_adv, size=size).add_(x_adv))
        x_adv = torch.where(per_image(done, x_adv), x_adv, moved)
    return x_adv


def _climb_to_first_dropping(attack: PGD, model: Model, x: Tensor, goal: Goal, draws: Draws) -> Tensor:
    x_adv = attack.start(attack.threat, x, draws)
    found = x_adv.clone()
    left = torch.arange(len(x), device=x.device)
    for _ in range(attack.steps):
        gradient, _, logits = input_gradient(model, x_adv, goal)
        going = (~goal.reached(logits)).nonzero().flatten()
        left, goal = left[going], goal.select(going)
        if left.numel() == 0:
            break
        step = attack.threat.steepest(gradient[going], x_adv[going], size=attack.size)
        x_adv = attack.threat.project(x_adv[going] + step, x[left])
        found[left] = x_adv
    return found


_ATTEMPTS = {"last": _climb_to_last, "best": _climb_to_best, "first": _climb_to_first}
