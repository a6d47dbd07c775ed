"""How is one attack run on all samples of an evaluation? In full batches, judged on the model, resumable at a step."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gossamer.attacks.stepwise import Pool, StepwiseAttack
from gossamer.data import DataSet
from gossamer.evaluation.batches import Batches
from gossamer.evaluation.judge import Outcome, judge
from gossamer.evaluation.ledger import Ledger, Tensors
from gossamer.evaluation.standing import Progress, Teller
from gossamer.evaluation.subject import Subject, seed_noise
from gossamer.seeding import Draws, Key, derive
from gossamer.threat import Allowance
from gossamer.types import Attack, Model


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """One attack on the samples at `positions`: (M,) int64 of the data set.

    stage: its name in the ledger; keys: the place of its draws; clean: (N, K), the logits of all samples.
    """

    stage: str
    keys: tuple[Key, ...]
    attack: Attack
    threat: Allowance
    positions: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Found:
    """What came of M samples, all (M,) bool on the CPU.

    broken: an admissible point was found at which the model errs. rejected: the attack's last point left ball or
    box. borderline: the model's margin at the judged point is within rounding of 0, so that another machine or
    batch plan may judge otherwise.
    """

    broken: Tensor
    rejected: Tensor
    borderline: Tensor
    seconds: float = 0.0

    @classmethod
    def none(cls, count: int) -> "Found":
        """Return that nothing was found yet for `count` samples."""
        nothing = torch.zeros(count, dtype=torch.bool)
        return cls(nothing, nothing.clone(), nothing.clone())

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Found":
        """Return what `tensors` gave."""
        broken, rejected, borderline = (tensors[name].bool() for name in ("broken", "rejected", "borderline"))
        return cls(broken, rejected, borderline, float(tensors["seconds"]))

    def tensors(self) -> Tensors:
        """Return everything, to be saved."""
        return {
            "broken": self.broken,
            "rejected": self.rejected,
            "borderline": self.borderline,
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }


@dataclass
class _Scene:
    """What a search works on: the job, the samples and the model that judges."""

    subject: Subject
    dataset: DataSet
    batches: Batches
    job: Hunt
    seed: int
    found: Found
    alone: Tensor
    settled: int = 0
    tick: int = 0
    started: float = field(default_factory=time.perf_counter)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W) and labels (n,) of rows: (n,) of the job's positions."""
        positions = self.job.positions[rows.cpu()]
        labels = self.dataset.labels[positions.to(self.dataset.labels.device)]
        return self.dataset.float(positions, device=self.subject.device), labels.to(self.subject.device)

    def index(self, rows: Tensor) -> Tensor:
        """Return the indices of rows in the data set, by which draws are keyed."""
        return self.dataset.index.cpu()[self.job.positions[rows.cpu()]]

    def draws(self, rows: Tensor) -> Draws:
        """Return the draws of rows."""
        return Draws(self.seed, self.job.keys).per_sample(self.index(rows))

    def judge(self, rows: Tensor, x: Tensor, x_adv: Tensor, y: Tensor) -> Outcome:
        """Judge points on the model, and remember what came of those that broke it."""
        outcome = judge(self.subject.model, x, x_adv, y, self.job.threat, index=self.index(rows))
        broken = rows.cpu()[outcome.broken.cpu()]
        self.found.broken[broken] = True
        self.found.borderline[broken] = outcome.borderline[outcome.broken].cpu()
        return outcome

    def settle(self, rows: Tensor, outcome: Outcome, alone: Tensor) -> None:
        """Remember the last word on rows."""
        rows = rows.cpu()
        self.found.rejected[rows] = outcome.rejected.cpu()
        self.found.borderline[rows] = outcome.borderline.cpu()
        self.alone[rows] = alone.cpu() & ~self.found.broken[rows]
        self.settled += len(rows)

    def so_far(self) -> Found:
        """Return what was found, with the time it took."""
        return replace(self.found, seconds=self.found.seconds + time.perf_counter() - self.started)

    def seed_noise(self) -> None:
        """Seed what a stochastic model draws in the next step, so that a resumed search draws the same."""
        seed_noise(derive(self.seed, *self.job.keys, "noise", self.tick), self.subject.device)
        self.tick += 1


class _Search(Protocol):
    waiting: Tensor

    def busy(self) -> bool: ...

    def under_way(self) -> float: ...

    def step(self) -> None: ...

    def tensors(self) -> Tensors: ...

    def load(self, tensors: Tensors) -> None: ...


class _BatchSearch:
    """An attack that takes a batch and gives it back."""

    def __init__(self, scene: _Scene, model: Model, rows: Tensor) -> None:
        self.waiting = rows
        self._scene = scene
        self._model = model

    def busy(self) -> bool:
        return len(self.waiting) > 0

    def under_way(self) -> float:
        return 0.0

    def step(self) -> None:
        scene = self._scene
        rows = self.waiting[: scene.batches.size]
        scene.seed_noise()
        if scene.batches.attempt(lambda: self._attack(rows), len(rows)) is not None:
            self.waiting = self.waiting[len(rows) :]

    def tensors(self) -> Tensors:
        return {}

    def load(self, tensors: Tensors) -> None:
        pass

    def _attack(self, rows: Tensor) -> bool:
        scene = self._scene
        x, y = scene.take(rows)
        # The judge's own images are not the attack's, which may be anybody's code, to write on.
        x_adv = scene.job.attack(self._model, x.clone(), y.clone(), draws=scene.draws(rows))
        outcome = scene.judge(rows, x, x_adv, y)
        if self._model is scene.subject.model:
            fooled = torch.zeros_like(outcome.broken)
        else:
            fooled = judge(self._model, x, x_adv, y, scene.job.threat).broken
        scene.settle(rows, outcome, fooled)
        return True


class _PoolSearch:
    """A stepwise attack: a sample that is broken makes room for the next at once."""

    def __init__(self, scene: _Scene, attack: StepwiseAttack, model: Model, rows: Tensor) -> None:
        self.waiting = rows
        self._scene = scene
        self._attack = attack
        self._model = model
        self._pool = self._empty()

    def busy(self) -> bool:
        return len(self._pool) + len(self.waiting) > 0

    def under_way(self) -> float:
        return self._pool.under_way()

    def step(self) -> None:
        scene = self._scene
        scene.seed_noise()
        self._fill()
        self._pool.widen(scene.batches.size)
        steps = self._pool.ahead(scene.batches.size)
        inside = self._pool.fixed["sample"]
        if scene.batches.attempt(partial(self._advance, steps), steps * len(self._pool)) is None:
            # All begin anew, those that had just left but were not judged too; their draws are their own.
            self.waiting = torch.cat([inside.unique().cpu(), self.waiting])
            self._pool = self._empty()

    def tensors(self) -> Tensors:
        return {f"pool.{name}": tensor for name, tensor in self._pool.tensors().items()}

    def load(self, tensors: Tensors) -> None:
        place = self._scene.subject.device
        held = {name.removeprefix("pool."): part for name, part in tensors.items() if name.startswith("pool.")}
        self._pool.load({name: part.to(place) for name, part in held.items()})

    def _empty(self) -> Pool:
        return Pool(self._attack, self._model, self._scene.draws, self._confirm)

    def _fill(self) -> None:
        scene = self._scene
        free = scene.batches.size - len(self._pool)
        rows, self.waiting = self.waiting[: max(free, 0)], self.waiting[max(free, 0) :]
        if not len(rows):
            return
        x, y = scene.take(rows)
        self._pool.enter(rows, x, y, scene.job.clean[scene.job.positions[rows]].to(x))

    def _advance(self, steps: int) -> bool:
        finished = self._pool.advance(steps)
        if not len(finished.sample):
            return True
        self._settle(finished.sample[finished.found], finished.best[finished.found])
        left = ~finished.found
        self._settle(finished.sample[left], finished.best[left], finished.alone[left])
        return True

    def _settle(self, rows: Tensor, best: Tensor, alone: Tensor | None = None) -> None:
        if not len(rows):
            return
        if alone is None:
            self._scene.settled += len(rows)
            return
        x, y = self._scene.take(rows)
        same = self._model is self._scene.subject.model
        outcome = self._scene.judge(rows, x, best, y)
        self._scene.settle(rows, outcome, torch.zeros_like(alone) if same else alone)

    def _confirm(self, rows: Tensor, best: Tensor) -> Tensor:
        x, y = self._scene.take(rows)
        return self._scene.judge(rows, x, best, y).broken


def hunt(
    subject: Subject,
    dataset: DataSet,
    batches: Batches,
    job: Hunt,
    seed: int,
    ledger: Ledger,
    progress: Progress | None,
) -> Found:
    """Return what the job's attack finds; goes on from what the ledger holds of it.

    Candidates are sought on the subject's surrogate where there is one and the attack allows it; what fools the
    surrogate alone is sought again on the model.
    """
    kept = ledger.under_way(job.stage)
    count = len(job.positions)
    scene = _scene(subject, dataset, batches, job, seed, kept)
    tell = Teller(progress, job.stage, count, count, len(dataset), before=scene.settled)
    first = 0 if kept is None else int(kept["phase"])
    models = _models(subject, job.attack)
    for number, model in list(enumerate(models))[first:]:
        rows = torch.arange(count) if number == 0 else scene.alone.nonzero().flatten()
        search = _search(scene, model, rows if kept is None else kept["waiting"])
        if kept is not None:
            search.load(kept)
            kept = None
        while search.busy():
            search.step()
            if progress is not None:
                tell(min(scene.settled, count), int(scene.found.broken.sum()), search.under_way())
            ledger.update(job.stage, lambda: _state(scene, search, number))  # noqa: B023 - called at once
    return scene.so_far()


def _scene(subject: Subject, dataset: DataSet, batches: Batches, job: Hunt, seed: int, kept: Tensors | None) -> _Scene:
    count = len(job.positions)
    if kept is None:
        return _Scene(subject, dataset, batches, job, seed, Found.none(count), torch.zeros(count, dtype=torch.bool))
    batches.size = int(kept["size"])
    return _Scene(
        subject, dataset, batches, job, seed, Found.of(kept), kept["alone"], int(kept["settled"]), int(kept["tick"])
    )


def _state(scene: _Scene, search: _Search, phase: int) -> Tensors:
    counts = {"phase": phase, "tick": scene.tick, "settled": scene.settled, "size": scene.batches.size}
    return {
        **scene.so_far().tensors(),
        **search.tensors(),
        **{name: torch.tensor(value) for name, value in counts.items()},
        "alone": scene.alone,
        "waiting": search.waiting,
    }


def _models(subject: Subject, attack: Attack) -> list[Model]:
    needs_module = getattr(attack, "needs_module", False)
    return [subject.model] if subject.surrogate is None or needs_module else [subject.surrogate, subject.model]


def _search(scene: _Scene, model: Model, rows: Tensor) -> _Search:
    attack = scene.job.attack
    if isinstance(attack, StepwiseAttack):
        return _PoolSearch(scene, attack, model, rows)
    return _BatchSearch(scene, model, rows)
