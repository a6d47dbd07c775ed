"""The l2 attack of Carlini & Wagner (IEEE S&P 2017): the smallest change that leaves a class, by Adam in tanh space."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal
from gossamer.attacks.minimal import AnyNorm, bring_into
from gossamer.attacks.stepwise import Rows, attack_batch, select
from gossamer.attacks.targets import Target
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model

INSIDE = 0.999999
"""Images are shrunk by this about grey before arctanh, which is infinite at black and white."""

ADAM_FIRST, ADAM_SECOND, ADAM_EPS = 0.9, 0.999, 1e-8

PROGRESS = 0.9999
"""A tenth of the steps must lower an image's loss by this factor, or its search ends."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimises ||x' - x||_2^2 + c * max(0, confidence - margin(x')) over w, x' = (tanh w + 1) / 2.

    margin: max_{i != y} z_i - z_y, or with a target t, z_t - max_{i != t} z_i. Each image has a c of its own: first
    first_constant, ten times as much until the margin exceeds the confidence, then halfway between the largest that
    failed and the smallest that did not; `searches` times in all, each of `steps` steps of Adam at `rate`. The
    constants are the authors'. abort_early: an image's search ends where a tenth of its steps gained nothing (as
    published, the batch's sum decides). What is kept is the smallest point in the threat's norm.

    Called as an attack, or stepwise, it stops at the first point inside the threat and brings the smallest into it
    where none is; `smallest` (and `minimal_norms`) searches on whatever eps is. One step is one forward and one
    backward. Raises ConfigError for impossible fields.
    """

    threat: ThreatModel
    steps: int = 10000
    searches: int = 9
    first_constant: float = 1e-3
    rate: float = 0.01
    confidence: float = 0.0
    target: Target | None = None
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_count("attack steps", self.steps)
        check_count("attack searches", self.searches)
        _check_number("attack first_constant", self.first_constant, above_zero=True)
        _check_number("attack rate", self.rate, above_zero=True)
        _check_number("attack confidence", self.confidence, above_zero=False)

    @property
    def norm(self) -> AnyNorm:
        """In which norm the smallest point is kept."""
        return self.threat.norm

    def attempts(self, classes: int) -> int:
        """Return 1: the searches build on one another."""
        return 1

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows at the first step of the first search."""
        none = torch.zeros_like(y, dtype=torch.bool)
        start = _to_tanh_space(x)
        c = x.new_full(y.shape, self.first_constant)
        aim = {} if self.target is None else {"target": self.target(clean, y)}
        return aim | {
            **_fresh_search(start),
            "start": start,
            "c": c,
            "lower": torch.zeros_like(c),
            "upper": torch.full_like(c, torch.inf),
            "search": torch.zeros_like(y),
            "best": x.clone(),
            "nearest": x.clone(),
            "distance": torch.full_like(c, torch.inf, dtype=torch.float64),
            "hit": none,
            "over": none,
        }

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows one step of Adam on; where a search ended, at the start of the next."""
        gradient, point, margin, loss = self._descent(model, x, y, rows)
        succeeded = margin > self.confidence
        distance = self.threat.distance(point, x)
        closer = succeeded & (distance < rows["distance"])
        # Inside the box it is by construction.
        hit = closer & (distance <= self.threat.eps)
        stalled = self._is_checked(rows["step"]) & (loss > PROGRESS * rows["loss"])
        moved: Rows = {
            **rows,
            **_adam(rows, gradient, self.rate),
            "loss": torch.where(self._is_checked(rows["step"]), loss, rows["loss"]),
            "succeeded": rows["succeeded"] | succeeded,
            "best": torch.where(per_image(hit, x), point, rows["best"]),
            "nearest": torch.where(per_image(closer, x), point, rows["nearest"]),
            "distance": torch.where(closer, distance, rows["distance"]),
            "hit": hit,
        }
        ended = stalled | (moved["step"] >= self.steps)
        return self._next_search(moved, ended, x) if bool(ended.any()) else moved

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return attack_batch(self, model, x, y, draws)

    @torch.no_grad()
    def smallest(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return the smallest adversarial example of every image, of any distance; x where there is none."""
        nearest, left = x.clone(), torch.arange(len(x), device=x.device)
        rows = self.begin(x, y, model(x), torch.zeros_like(y), draws)
        while len(left):
            rows = self.advance(model, x[left], y[left], rows, draws)
            over = rows["over"]
            if bool(over.any()):
                nearest[left[over]] = rows["nearest"][over]
                left, rows = left[~over], select(rows, ~over)
        return nearest

    def _descent(self, model: Model, x: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        goal = Goal(loss="margin", labels=y, target=rows.get("target"))
        leaf = rows["w"].detach().requires_grad_(True)
        with torch.enable_grad():
            point = (leaf.tanh() + 1) / 2
            margin = goal.value(model(point))
            squared = (point - x).flatten(1).square().sum(dim=1)
            loss = squared + rows["c"] * (self.confidence - margin).clamp(min=0)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return gradient, point.detach(), margin.detach(), loss.detach()

    def _is_checked(self, step: Tensor) -> Tensor:
        return (step % math.ceil(self.steps / 10) == 0) & self.abort_early

    def _next_search(self, rows: Rows, ended: Tensor, x: Tensor) -> Rows:
        c, succeeded = rows["c"], rows["succeeded"]
        upper = torch.where(ended & succeeded, torch.minimum(rows["upper"], c), rows["upper"])
        lower = torch.where(ended & ~succeeded, torch.maximum(rows["lower"], c), rows["lower"])
        following = torch.where(upper.isinf(), 10 * c, (lower + upper) / 2)
        search = rows["search"] + ended.long()
        over = search >= self.searches
        brought = bring_into(self.threat, rows["nearest"], x)
        fresh = _fresh_search(rows["start"])
        return {
            **rows,
            **{name: torch.where(_as(ended, value), value, rows[name]) for name, value in fresh.items()},
            "c": torch.where(ended, following, c),
            "lower": lower,
            "upper": upper,
            "search": search,
            "best": torch.where(per_image(over, x), brought, rows["best"]),
            "over": over,
        }


def _check_number(subject: str, value: float, *, above_zero: bool) -> None:
    if math.isfinite(value) and (value > 0 or (value == 0 and not above_zero)):
        return
    expected = "a finite number above 0" if above_zero else "a finite number >= 0"
    raise ConfigError(subject, expected=expected, got=value, remedy="leave it out for the authors' value")


def _to_tanh_space(x: Tensor) -> Tensor:
    return torch.atanh((2 * x - 1) * INSIDE)


def _fresh_search(start: Tensor) -> Rows:
    count = start.new_zeros(len(start))
    return {
        "w": start,
        "first_moment": torch.zeros_like(start),
        "second_moment": torch.zeros_like(start),
        "step": count.long(),
        "loss": torch.full_like(count, torch.inf),
        "succeeded": count.bool(),
    }


def _adam(rows: Rows, gradient: Tensor, rate: float) -> Rows:
    step = rows["step"] + 1
    first = ADAM_FIRST * rows["first_moment"] + (1 - ADAM_FIRST) * gradient
    second = ADAM_SECOND * rows["second_moment"] + (1 - ADAM_SECOND) * gradient.square()
    first_share = per_image((1 - ADAM_FIRST ** step.double()).to(gradient.dtype), gradient)
    second_share = per_image((1 - ADAM_SECOND ** step.double()).to(gradient.dtype), gradient)
    w = rows["w"] - rate * (first / first_share) / ((second / second_share).sqrt() + ADAM_EPS)
    return {"w": w, "first_moment": first, "second_moment": second, "step": step}


def _as(flags: Tensor, like: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (like.dim() - 1))
