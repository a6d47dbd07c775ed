"""The Square Attack (Andriushchenko et al., ECCV 2020): random search over square windows, without gradients."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.goals import SEED_ZERO, Goal
from gossamer.attacks.queries import Searched
from gossamer.attacks.square_proposals import PROPOSALS, Proposals
from gossamer.attacks.stepwise import Pool, Rows, attack_batch
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model

SquareLoss: TypeAlias = Literal["margin", "ce"]

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Proposals, of 10,000, after each of which the windows' share of the pixels is halved."""

BLOCK = 32
"""Proposals whose random numbers are drawn at once: a generator for each row and step would cost more than it draws."""

AHEAD = 4
"""Proposals tried at one call of the model where it has room: about one in twenty is accepted, and ends them."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Changes one square window at a time and keeps the change where the loss rises or the model errs.

    queries: proposals after the first point, as the published code counts: an attempt makes up to queries + 1
    forwards, one a step, and never a backward. p_init: the share of the pixels in the first windows, halved after
    10, 50, 200, ... proposals; resc_schedule: after that share of 10,000 `queries` instead. loss: margin or ce.
    targets: None leaves the label; k drives to each of the k most likely wrong classes at x in `restarts` attempts,
    and takes any wrong class for success.

    A point counts only inside ball and box: in l1 the first one may lie some 1e-5 outside by rounding, where the
    published code counts it and this one goes on.

    Each image draws windows, patterns and signs of its own, where the published code shares windows and patterns
    in a batch. Draws, keyed by sample and attempt: "start", U[0, 1) of shape (C, 1, W) in linf, (tiles down, tiles
    across, 1 + C) in l2 and l1; "window" at each "block" (proposal // 32), U[0, 1) of shape (32, 2 + C) in linf,
    (32, 5 + C) in l2 and l1.

    rows: step, counts forwards of this attempt; queries: (n,) int64, of all attempts; value: the loss at best.

    Raises ConfigError for impossible fields.
    """

    threat: ThreatModel
    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    loss: SquareLoss = "margin"
    resc_schedule: bool = False
    targets: int | None = None

    def __post_init__(self) -> None:
        check_count("attack queries", self.queries)
        check_count("attack restarts", self.restarts)
        if self.targets is not None:
            check_count("attack targets", self.targets)
        if not (math.isfinite(self.p_init) and 0 < self.p_init <= 1):
            raise ConfigError(
                "attack p_init", expected="a share in (0, 1]", got=self.p_init, remedy="write 0.8 as published"
            )
        if self.loss not in get_args(SquareLoss):
            raise ConfigError("attack loss", expected="margin or ce", got=repr(self.loss), remedy="write margin")

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return attack_batch(self, model, x, y, draws)

    def search(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Searched:
        """Return points and queries for x: (N, C, H, W) in [0, 1] with labels y: (N,), as many side by side.

        The clean forward, for the number of classes and the targets, is not counted.
        """
        with torch.no_grad():
            clean = model(x)
        order = torch.arange(len(x), device=x.device)
        keyed = draws.per_sample(order) if draws.rows is None else draws
        points, found = x.clone(), torch.zeros_like(y, dtype=torch.bool)
        queries = torch.full_like(y, self.attempts(clean.shape[1]) * (self.queries + 1))

        def note(sample: Tensor, best: Tensor) -> Tensor:
            points[sample], found[sample] = best, True
            queries[sample] = pool.rows["queries"][pool.rows["hit"]]
            return torch.ones_like(found[sample])

        pool = Pool(self, model, keyed.select, confirm=note)
        pool.enter(order, x, y, clean)
        while len(pool):
            pool.advance()
        distance = torch.linalg.vector_norm((points.double() - x.double()).flatten(1), dim=1)
        return Searched(
            points=points, found=found, queries=queries, spent=queries, distance=distance.where(found, torch.inf)
        )

    def attempts(self, classes: int) -> int:
        """Return restarts, times targets, K - 1 at most; raises ConfigError where there is no wrong class."""
        if classes < 2:
            raise ConfigError(
                "attack", expected="a model of at least 2 classes", got=classes, remedy="evaluate a model with more"
            )
        return self.restarts * (1 if self.targets is None else min(self.targets, classes - 1))

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows at their first point; attempt = target * restarts + restart. See `StepwiseAttack.begin`."""
        proposals = PROPOSALS[self.threat.norm]
        nothing = torch.zeros_like(y, dtype=torch.bool)
        loss_type = torch.promote_types(clean.dtype, torch.float32)
        rows: Rows = {
            "best": proposals.start(x, self.threat.eps, draws.at("start")),
            "hit": nothing,
            "over": nothing,
            "step": torch.zeros_like(y),
            "queries": attempt * (self.queries + 1),
            "value": torch.full_like(y, -torch.inf, dtype=loss_type),
            "numbers": torch.zeros(len(x), BLOCK, proposals.fixed + x.shape[1], device=x.device),
        }
        if self.targets is None:
            return rows
        ranked = clean.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        return {**rows, "target": ranked.gather(1, attempt[:, None] // self.restarts)[:, 0]}

    @property
    def ahead(self) -> int:
        """How many proposals to try at once at most."""
        return AHEAD

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows one forward on. See `StepwiseAttack.advance`."""
        return self.advance_by(1, model, x, y, rows, draws)

    def advance_by(self, steps: int, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows at their first accepted proposal of the next ones. See `Speculative.advance_by`.

        A row goes no further than its block of numbers, the first point of an attempt stands alone.
        """
        numbers = self._draw(rows, draws)
        tried = self._propose(x, rows, numbers, steps)
        logits = model(tried.flatten(0, 1))
        goal = Goal(loss=self.loss, labels=y, target=rows.get("target")).repeat(steps)
        value, erred = goal.value(logits).view(steps, -1), (logits.argmax(dim=1) != goal.labels).view(steps, -1)
        taken, accepted = self._first_accepted(rows, erred | (value > rows["value"]))
        erred, value, tried = (_of_step(each, taken) for each in (erred, value, tried))
        best = torch.where(per_image(accepted, x), tried, rows["best"])
        done = taken + 1
        step = rows["step"] + done
        return {
            **rows,
            "best": best,
            "hit": self._admit(erred, best, x),
            "over": step > self.queries,
            "step": step,
            "queries": rows["queries"] + done,
            "value": torch.where(value > rows["value"], value, rows["value"]),
            "numbers": numbers,
        }

    def _draw(self, rows: Rows, draws: Draws) -> Tensor:
        """Return each row's random numbers, with new ones where a block begins: (n, BLOCK, numbers of a step)."""
        numbers, proposal = rows["numbers"], rows["step"] - 1
        due = ((proposal >= 0) & (proposal % BLOCK == 0)).nonzero().flatten()
        if not len(due):
            return numbers
        here = draws.at("window").select(due).at_each("block", proposal[due] // BLOCK)
        drawn = here.uniform((len(due), *numbers.shape[1:]), device=numbers.device)
        return numbers.index_copy(0, due, drawn)

    def _propose(self, x: Tensor, rows: Rows, numbers: Tensor, steps: int) -> Tensor:
        """Return the next points to try: (steps, n, C, H, W), every one of them one step from the best."""
        best = rows["best"]
        proposal = rows["step"] - 1 + torch.arange(steps, device=x.device)[:, None]
        now = numbers[torch.arange(len(x), device=x.device), proposal % BLOCK].flatten(0, 1)
        sizes = self._sizes(proposal.flatten(), x.shape)
        propose = PROPOSALS[self.threat.norm].propose
        tried = propose(_repeat(x, steps), _repeat(best, steps), sizes, now, self.threat.eps).view(steps, *x.shape)
        first = rows["step"] == 0
        return torch.where(per_image(first, x), best, tried) if bool(first.any()) else tried

    def _first_accepted(self, rows: Rows, accepted: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of the tried proposals each row ends at, and whether it is accepted; accepted: (steps, n)."""
        if len(accepted) == 1:
            return torch.zeros_like(rows["step"]), accepted[0]
        proposal = rows["step"] - 1
        reach = torch.minimum(BLOCK - proposal % BLOCK, self.queries - proposal).clamp_(max=len(accepted))
        accepted = accepted & (torch.arange(len(accepted), device=reach.device)[:, None] < reach)
        any_ = accepted.any(dim=0)
        return torch.where(any_, accepted.int().argmax(dim=0), reach - 1), any_

    def _sizes(self, proposal: Tensor, shape: torch.Size) -> Tensor:
        """Return the sides of the windows of proposals: (n,) int64 from 0."""
        if self.resc_schedule:
            proposal = (proposal.double() / self.queries * 10_000).long()
        halvings, sides = _schedule(PROPOSALS[self.threat.norm], self.p_init, shape, proposal.device)
        return sides[torch.bucketize(proposal, halvings)]

    def _admit(self, erred: Tensor, best: Tensor, x: Tensor) -> Tensor:
        hit = erred.clone()
        at = erred.nonzero().flatten()
        if len(at):
            hit[at] = ~self.threat.violates(best[at], x[at])
        return hit


def _repeat(images: Tensor, times: int) -> Tensor:
    return images if times == 1 else images.repeat(times, *[1] * (images.dim() - 1))


def _of_step(values: Tensor, step: Tensor) -> Tensor:
    """Return for each row the value of its step: (n, ...), from values: (steps, n, ...)."""
    return values[0] if len(values) == 1 else values[step, torch.arange(len(step), device=step.device)]


@lru_cache(maxsize=16)
def _schedule(proposals: Proposals, p_init: float, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return after which proposals windows shrink, and their sides before the first and after each."""
    sides = [proposals.size(p_init / 2**halving, shape) for halving in range(len(HALVINGS) + 1)]
    return torch.tensor(HALVINGS, device=device), torch.tensor(sides, device=device)
