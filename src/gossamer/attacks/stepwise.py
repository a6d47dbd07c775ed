"""How do attacks that go step by step run on many images? Each image at its own step, so that none waits for another.

A batch that is attacked as a whole drains as its images break, and what is left of it runs half empty. Here every
image is a row with its own state: a row that is broken or at its end leaves at once and the next image takes its
place, so that the model always sees full batches. Rows of other attempts (restarts, targets) run side by side: of
other images, and where there are too few images for a batch, of one image too.
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


@runtime_checkable
class Speculative(StepwiseAttack, Protocol):
    """A stepwise attack most of whose steps leave a row where it was: several can be tried from there at once."""

    @property
    def ahead(self) -> int:
        """How many steps to try at once at most."""
        ...

    def advance_by(self, steps: int, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return the rows 1 to `steps` steps on, each as `advance` would leave it then, by one call of the model.

        The call is on `steps` times the rows. A row stops at the first step that moves it, and where it hits or ends.
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

    A row has the attempts from `attempt` up to `until` before it. An image has one row, with all of them, until
    `widen` splits it; ended: what came of its rows that are at their end while others of it go on.
    """

    attack: StepwiseAttack
    model: Model
    keyed: Callable[[Tensor], Draws]
    confirm: Confirm = take_at_word
    fixed: Rows = field(default_factory=dict[str, Tensor])
    rows: Rows = field(default_factory=dict[str, Tensor])
    ended: Rows = field(default_factory=dict[str, Tensor])
    _drawn: Draws | None = field(default=None, init=False)

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
            "until": torch.full_like(sample, self.attack.attempts(clean.shape[1])),
            "alone": torch.zeros_like(sample, dtype=torch.bool),
        }
        self._add(fixed)

    def widen(self, size: int) -> None:
        """Begin further attempts of images until there are `size` rows: for batches that no waiting image fills.

        Which attempts an image gets stays the same, so the verdict does too. An image that falls costs more by the
        attempts that go on beside the one that breaks it; most such images fall in the first one, so only those that
        have outlived it are split.
        """
        while 0 < len(self) < size:
            attempt, until = self.fixed["attempt"], self.fixed["until"]
            open_ = torch.where(attempt > 0, until - attempt - 1, 0)
            most, order = open_.sort(descending=True, stable=True)
            at = order[: size - len(self)][most[: size - len(self)] > 0]
            if not len(at):
                return
            more = select(self.fixed, at)
            middle = until[at] - (open_[at] + 1) // 2
            self.fixed["until"] = until.index_copy(0, at, middle)
            self._add({**more, "attempt": middle, "alone": torch.zeros_like(more["alone"])})

    def ahead(self, size: int) -> int:
        """Return how many steps to try at one call of the model on at most `size` rows."""
        most = self.attack.ahead if isinstance(self.attack, Speculative) else 1
        return max(1, min(most, size // max(len(self), 1)))

    @torch.no_grad()
    def advance(self, steps: int = 1) -> Finished:
        """Go one step on with every image, or up to `steps`, and let go of those that are broken or at their end.

        steps: as `ahead` says.
        """
        fixed = self.fixed
        state = (self.model, fixed["x"], fixed["y"], self.rows, self._draws())
        if steps > 1 and isinstance(self.attack, Speculative):
            self.rows = self.attack.advance_by(steps, *state)
        else:
            self.rows = self.attack.advance(*state)
        found = self._confirmed()
        over = self.rows["over"] & ~found
        last = fixed["attempt"] + 1 >= fixed["until"]
        self._retry((over & ~last).nonzero().flatten())
        return self._leave(found, over & last)

    def under_way(self) -> float:
        """Return what the finished attempts of the images inside amount to, in images."""
        if not len(self):
            return 0.0
        left = int((self.fixed["until"] - self.fixed["attempt"]).sum())
        return len(self.fixed["sample"].unique()) - left / self.attack.attempts(self.fixed["clean"].shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """Return everything the pool holds, to be saved."""
        parts = {"fixed": self.fixed, "rows": self.rows, "ended": self.ended}
        return {f"{part}.{name}": value for part, held in parts.items() for name, value in held.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        self.fixed, self.rows, self.ended = (_under(f"{part}.", tensors) for part in ("fixed", "rows", "ended"))
        self._drawn = None

    def _add(self, fixed: Rows) -> None:
        rows = self._begin(fixed)
        self.fixed = join(self.fixed, fixed) if self.fixed else fixed
        self.rows = join(self.rows, rows) if self.rows else rows
        self._drawn = None

    def _begin(self, fixed: Rows) -> Rows:
        with torch.no_grad():
            return self.attack.begin(fixed["x"], fixed["y"], fixed["clean"], fixed["attempt"], self._keys(fixed))

    def _keys(self, fixed: Rows) -> Draws:
        return self.keyed(fixed["sample"]).at_each("attempt", fixed["attempt"])

    def _draws(self) -> Draws:
        if self._drawn is None:
            self._drawn = self._keys(self.fixed)
        return self._drawn

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
        self._drawn = None

    def _leave(self, found: Tensor, at_end: Tensor) -> Finished:
        if not bool((found | at_end).any()):
            return _finished({name: held[:0] for name, held in self._outcomes().items()}, found[:0])
        broken = select(self._outcomes(), _first_of_each(self.fixed["sample"], found))
        leaving = at_end | torch.isin(self.fixed["sample"], broken["sample"])
        ended = select(self._outcomes(), leaving)
        ended = join(self.ended, ended) if self.ended else ended
        self.fixed, self.rows = select(self.fixed, ~leaving), select(self.rows, ~leaving)
        self._drawn = None
        waits = torch.isin(ended["sample"], self.fixed["sample"])
        self.ended = select(ended, waits) if bool(waits.any()) else {}
        unbroken = select(ended, ~waits & ~torch.isin(ended["sample"], broken["sample"]))
        gone = join(broken, _last_attempts(unbroken))
        return _finished(gone, torch.isin(gone["sample"], broken["sample"]))

    def _outcomes(self) -> Rows:
        last = self.fixed["until"] == self.attack.attempts(self.fixed["clean"].shape[1])
        return {
            "sample": self.fixed["sample"],
            "alone": self.fixed["alone"],
            "last": last,
            "best": self.rows["best"],
        }


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


def _finished(gone: Rows, found: Tensor) -> Finished:
    return Finished(gone["sample"], found, gone["alone"] & ~found, gone["best"])


def _first_of_each(sample: Tensor, where: Tensor) -> Tensor:
    """Return the positions of the first row of each sample where: (n,) bool."""
    positions = where.nonzero().flatten()
    first = {each: at for at, each in reversed(list(zip(positions.tolist(), sample[positions].tolist(), strict=True)))}
    return torch.tensor(sorted(first.values()), dtype=torch.int64, device=sample.device)


def _last_attempts(ended: Rows) -> Rows:
    """Return of each sample the row of its last attempt, `alone` where any of its rows is."""
    rows = select(ended, ended["last"])
    return {**rows, "alone": torch.isin(rows["sample"], ended["sample"][ended["alone"]])}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Rows:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
