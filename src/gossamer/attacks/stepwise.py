"""How do attacks that go step by step run on many images? Each image at its own step, so that none waits for another.

A batch that is attacked as a whole drains as its images break, and what is left of it runs half empty. Here every
image is a row with its own state: a row that is broken or at its end leaves at once and the next image takes its
place, so that the model always sees full batches. Rows of other attempts (restarts, targets) of other images run
side by side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Model

Rows: TypeAlias = dict[str, Tensor]
"""The state of n images: named tensors of shape (n, ...), row i of each belonging to image i alone.

Every attack keeps `best`: (n, C, H, W), the point to hand in; `hit`: (n,) bool, whether this step has shown that the
model errs at `best`, inside ball and box; `over`: (n,) bool, whether the attempt has done all its steps. Where a hit
is refused the row goes on, so `hit` says so at each step anew.
"""


@runtime_checkable
class StepwiseAttack(Protocol):
    """An attack whose attempts at an image are sequences of equal steps.

    Neither function looks from one row to another, so rows of any progress share a batch. Both are called without
    a graph, on a model that is ready for attack (`crafting`).
    """

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do."""
        ...

    def attempts(self, classes: int) -> int:
        """Return how many attempts (restarts times targets) an image gets, for a model with that many classes.

        Raises ConfigError where the attack needs more classes.
        """
        ...

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return the rows of images at the start of an attempt each; the model is not called.

        x: (n, C, H, W) in [0, 1]; y: (n,) int64; clean: (n, K), logits at x; attempt: (n,) int64 from 0; draws:
        keyed by sample and attempt.
        """
        ...

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows one step on; one call of the model, and its gradient, where the attack can do with one.

        draws: keyed by sample and attempt; an attack that draws at a step adds `at_each("step", ...)`.
        """
        ...


def select(rows: Mapping[str, Tensor], keep: Tensor) -> Rows:
    """Return a part of the rows; keep: (n,) bool or (m,) positions."""
    return {name: value[keep] for name, value in rows.items()}


def join(rows: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> Rows:
    """Return both sets of rows, one after the other."""
    return {name: torch.cat([value, more[name]]) for name, value in rows.items()}


def put(rows: Mapping[str, Tensor], positions: Tensor, other: Mapping[str, Tensor]) -> Rows:
    """Return the rows with those at positions: (m,) int64 replaced by `other`: m rows."""
    return {name: value.index_copy(0, positions, other[name]) for name, value in rows.items()}


@dataclass(frozen=True)
class Finished:
    """Images that left a pool.

    sample: (n,) int64, as they entered; found: (n,) bool, broken and confirmed; alone: (n,) bool, the attacked model
    erred at points that were all refused; best: (n, C, H, W), the last attempt's.
    """

    sample: Tensor
    found: Tensor
    alone: Tensor
    best: Tensor


Confirm: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Called with sample: (n,) and best: (n, C, H, W); returns (n,) bool: which of these hits count."""


def take_at_word(sample: Tensor, best: Tensor) -> Tensor:
    """Confirm every hit."""
    del best
    return torch.ones_like(sample, dtype=torch.bool)


@dataclass
class Pool:
    """Images under one stepwise attack, each in its own attempt at its own step.

    keyed: the draws of samples: (n,) int64, one row each. confirm: judges each hit; an image leaves at its first
    confirmed one, or at the end of its last attempt, and goes on after a refusal.
    """

    attack: StepwiseAttack
    model: Model
    keyed: Callable[[Tensor], Draws]
    confirm: Confirm = take_at_word
    fixed: Rows = field(default_factory=dict[str, Tensor])
    rows: Rows = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        return len(self.fixed["sample"]) if self.fixed else 0

    def enter(self, sample: Tensor, x: Tensor, y: Tensor, clean: Tensor) -> None:
        """Take in images; sample: (n,) int64, by which they are keyed and told apart; clean: (n, K), logits at x."""
        sample = sample.to(x.device)
        fixed: Rows = {
            "sample": sample,
            "x": x,
            "y": y,
            "clean": clean,
            "attempt": torch.zeros_like(sample),
            "alone": torch.zeros_like(sample, dtype=torch.bool),
        }
        rows = self._begin(fixed)
        self.fixed = join(self.fixed, fixed) if self.fixed else fixed
        self.rows = join(self.rows, rows) if self.rows else rows

    @torch.no_grad()
    def advance(self) -> Finished:
        """Go one step on with every image, and let go of those that are broken or at their end."""
        fixed = self.fixed
        self.rows = self.attack.advance(self.model, fixed["x"], fixed["y"], self.rows, self._draws(fixed))
        found = self._confirmed()
        over = self.rows["over"] & ~found
        last = fixed["attempt"] + 1 >= self.attack.attempts(fixed["clean"].shape[1])
        self._retry((over & ~last).nonzero().flatten())
        return self._leave(found | (over & last), found)

    def under_way(self) -> float:
        """Return what the finished attempts of the images inside amount to, in images."""
        if not len(self):
            return 0.0
        return float(self.fixed["attempt"].sum()) / self.attack.attempts(self.fixed["clean"].shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """Return everything the pool holds, to be saved."""
        fixed = {f"fixed.{name}": value for name, value in self.fixed.items()}
        return fixed | {f"rows.{name}": value for name, value in self.rows.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        self.fixed = _under("fixed.", tensors)
        self.rows = _under("rows.", tensors)

    def _begin(self, fixed: Rows) -> Rows:
        with torch.no_grad():
            return self.attack.begin(fixed["x"], fixed["y"], fixed["clean"], fixed["attempt"], self._draws(fixed))

    def _draws(self, fixed: Rows) -> Draws:
        return self.keyed(fixed["sample"]).at_each("attempt", fixed["attempt"])

    def _confirmed(self) -> Tensor:
        hit = self.rows["hit"]
        found = torch.zeros_like(hit)
        positions = hit.nonzero().flatten()
        if not len(positions):
            return found
        agreed = self.confirm(self.fixed["sample"][positions], self.rows["best"][positions])
        found[positions] = agreed.to(found.device)
        self.fixed["alone"] = self.fixed["alone"] | (hit & ~found)
        return found

    def _retry(self, positions: Tensor) -> None:
        if not len(positions):
            return
        fixed = select(self.fixed, positions)
        fixed["attempt"] = fixed["attempt"] + 1
        self.rows = put(self.rows, positions, self._begin(fixed))
        self.fixed = put(self.fixed, positions, fixed)

    def _leave(self, leaving: Tensor, found: Tensor) -> Finished:
        gone = select(self.fixed, leaving)
        found = found[leaving]
        finished = Finished(gone["sample"], found, gone["alone"] & ~found, self.rows["best"][leaving])
        if len(found):
            self.fixed, self.rows = select(self.fixed, ~leaving), select(self.rows, ~leaving)
        return finished


def attack_batch(attack: StepwiseAttack, model: Model, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """Return the best point found for every image of one batch: the plain call of a stepwise attack.

    x: (N, C, H, W) in [0, 1]; y: (N,) int64. Images leave at their first success.
    """
    best = x.clone()
    if not len(x):
        return best
    with torch.no_grad():
        clean = model(x)
    order = torch.arange(len(x), device=x.device)
    draws = draws.per_sample(order) if draws.rows is None else draws
    pool = Pool(attack, model, draws.select)
    pool.enter(order, x, y, clean)
    while len(pool):
        finished = pool.advance()
        best[finished.sample] = finished.best
    return best


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Rows:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
