"""Auto-PGD: gradient ascent that adapts its steps to the loss (Croce & Hein, ICML 2020; in l1, ICML 2021)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks import apgd_halving, apgd_l1
from gossamer.attacks.apgd_l1 import Stage
from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal, input_gradient
from gossamer.attacks.stepwise import Rows, attack_batch
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model

APGDLoss: TypeAlias = Literal["ce", "dlr"]

SLACK = 5e-7
"""How far outside the ball rounding may leave a point: half of what a judge tolerates."""


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Ascent from `restarts` random starts of `steps` steps each; a point at which the model errs ends it.

    In linf and l2 a step starts at 2 eps, carries momentum, and halves at checkpoints where the loss rose in at
    most a share `rho` of the steps or its best stood still; ascent goes on from the best point. In l1 steps are
    sparse, and with `largereps` pass through balls of 3 and 2 eps before that of eps. loss: ce or dlr. targets:
    how many of the likeliest wrong classes are attempted one after the other, all K - 1 at most; None for no
    target. eot: the gradient is the mean over so many forward passes, prediction and loss are those of the last.

    An attempt looks at its start and after every step: `steps` + 1 model calls, and one more for each further
    ball. A point in a larger ball never counts as found. Attempt target * restarts + restart draws its start
    at "start": U[0, 1) in linf, N(0, 1) in l2 and l1. Raises ConfigError for impossible fields.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    loss: APGDLoss = "ce"
    targets: int | None = None
    rho: float = 0.75
    eot: int = 1
    largereps: bool = True

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_count("attack restarts", self.restarts)
        check_count("attack eot", self.eot)
        if self.targets is not None:
            check_count("attack targets", self.targets)
        if self.loss not in get_args(APGDLoss):
            raise ConfigError("attack loss", expected="ce or dlr", got=repr(self.loss), remedy="write ce")
        if not 0 < self.rho <= 1:
            raise ConfigError("attack rho", expected="a share in (0, 1]", got=self.rho, remedy="write 0.75")
        if self.plan[-1].steps < 0:
            raise ConfigError(
                "attack steps",
                expected="at least 2 for the three radii of l1",
                got=self.steps,
                remedy="write 100, or largereps: false",
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return attack_batch(self, model, x, y, draws)

    @cached_property
    def plan(self) -> tuple[Stage, ...]:
        """The balls that an attempt passes through: one but in l1."""
        larger_eps = self.largereps and self.threat.norm == "l1"
        return apgd_l1.stages(self.threat.eps, self.steps, larger_eps=larger_eps)

    @property
    def least_classes(self) -> int:
        """How many classes its loss needs."""
        if self.loss == "ce":
            return 2
        return 3 if self.targets is None else 4

    def attempts(self, classes: int) -> int:
        """Return restarts times targets; raises ConfigError where there are too few classes for the loss."""
        if classes < self.least_classes:
            raise ConfigError(
                f"the {'targeted ' if self.targets else ''}loss {self.loss}",
                expected=f"at least {self.least_classes} classes",
                got=classes,
                remedy="attack with apgd-ce, fab or square" if self.loss == "dlr" else "attack a classifier",
            )
        return self.restarts * (1 if self.targets is None else min(self.targets, classes - 1))

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return the rows at their random starts."""
        value = torch.zeros_like(clean[:, 0], dtype=torch.promote_types(clean.dtype, torch.float32))
        rows = {"stage": torch.zeros_like(y), **self._start(x, value, draws.at("start"))}
        if self.targets is not None:
            rows["target"] = _ranked(clean, y, attempt // self.restarts)
        point, nothing = rows["point"], torch.zeros_like(y, dtype=torch.bool)
        return {
            **rows,
            "step": torch.zeros_like(y),
            "previous": point,
            "peak": point,
            "peak_gradient": torch.zeros_like(point),
            "peak_loss": value,
            "best": x,
            "hit": nothing,
            "over": nothing,
        }

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows after a look at their points, each moved one step on; draws nothing."""
        plan = self.plan
        final = rows["stage"] == len(plan) - 1
        gradient, loss, wrong = self._look(model, self._inside(x, rows["point"], final), y, rows)
        rows = _remember(rows, gradient, loss)
        ended = rows["step"] == torch.tensor([stage.steps for stage in plan], device=x.device)[rows["stage"]]
        hit = wrong & final
        over = ended & final
        best = self._best(x, rows, hit, over)
        rows, back = self._adapt(x, rows, loss)
        point = rows["point"]
        if bool(back.any()):
            point, gradient = _pick(back, rows["peak"], point), _pick(back, rows["peak_gradient"], gradient)
        moved: Rows = {
            "point": self._move(x, point, gradient, rows),
            "previous": point,
            "step": rows["step"] + 1,
        }
        rows = apgd_l1.next_stage(x, {**rows, **moved}, ended & ~final, plan)
        return {**rows, "best": best, "hit": hit, "over": over}

    def _best(self, x: Tensor, rows: Rows, hit: Tensor, over: Tensor) -> Tensor:
        """Return the points to hand in, where there is something to hand in: a hit, else the highest at the end."""
        if not bool((hit | over).any()):
            return rows["best"]
        best = torch.where(per_image(hit, x), rows["point"], _pick(over, rows["peak"], rows["best"]))
        return self._inside(x, best, hit | over)

    def _inside(self, x: Tensor, point: Tensor, final: Tensor) -> Tensor:
        # The authors' projections leave the ball by more than a judge tolerates where many rounding errors add up.
        # The trajectory stays theirs; what the model sees, and what is handed in, is inside. In linf none add up.
        if self.threat.norm == "linf":
            return point
        outside = (final & self.threat.violates(point, x, tolerance=SLACK)).nonzero().flatten()
        if not len(outside):
            return point
        return point.index_copy(0, outside, self.threat.project(point[outside], x[outside]))

    def _look(self, model: Model, point: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        goal = Goal(loss=self.loss, labels=y, target=rows.get("target"))
        total, loss, logits = input_gradient(model, point, goal)
        for _ in range(self.eot - 1):
            gradient, loss, logits = input_gradient(model, point, goal)
            total = total + gradient
        return total if self.eot == 1 else total / self.eot, loss, logits.argmax(dim=1) != y

    def _start(self, x: Tensor, value: Tensor, draws: Draws) -> Rows:
        if self.threat.norm == "l1":
            return apgd_l1.begin(x, draws, self.plan)
        return apgd_halving.begin(self.threat, x, value, draws)

    def _adapt(self, x: Tensor, rows: Rows, loss: Tensor) -> tuple[Rows, Tensor]:
        if self.threat.norm == "l1":
            return apgd_l1.adapt(x, rows, self.plan)
        return apgd_halving.adapt(rows, loss, self.steps, self.rho)

    def _move(self, x: Tensor, point: Tensor, gradient: Tensor, rows: Rows) -> Tensor:
        if self.threat.norm == "l1":
            return apgd_l1.move(x, point, gradient, rows, self.plan)
        return apgd_halving.move(self.threat, x, point, gradient, rows)


def _ranked(clean: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    wrong = clean.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return wrong.gather(1, rank[:, None])[:, 0]


def _remember(rows: Rows, gradient: Tensor, loss: Tensor) -> Rows:
    better = (rows["step"] == 0) | (loss > rows["peak_loss"])
    return {
        **rows,
        "peak": _pick(better, rows["point"], rows["peak"]),
        "peak_gradient": _pick(better, gradient, rows["peak_gradient"]),
        "peak_loss": torch.where(better, loss, rows["peak_loss"]),
    }


def _pick(where: Tensor, images: Tensor, others: Tensor) -> Tensor:
    return torch.where(per_image(where, images), images, others)
