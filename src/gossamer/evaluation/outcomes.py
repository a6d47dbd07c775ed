"""What becomes of every sample, clean and under one attack."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.data import DataSet
from gossamer.evaluation.batches import Batches
from gossamer.evaluation.judge import Outcome, judge, predict
from gossamer.evaluation.statistics import wilson
from gossamer.evaluation.subject import Subject, seed_noise
from gossamer.evaluation.trials import Trial, parameters
from gossamer.runs.results import AttackOutcome
from gossamer.seeding import Draws, derive

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is done ("clean" or an attack's name), samples done and samples in all."""


@dataclass(frozen=True)
class Bench:
    """A subject and the samples it is measured on."""

    subject: Subject
    dataset: DataSet
    batches: Batches
    seed: int
    progress: Progress | None

    def clean(self) -> Tensor:
        """Return the predictions on the clean samples: (N,) int64, on the CPU."""
        seed_noise(derive(self.seed, "evaluate", "clean"), self.subject.device)

        def work(positions: Tensor) -> Tensor:
            x, _, index = self._take(positions)
            return predict(self.subject.model, x, index=index).argmax(dim=1).cpu()

        return self._over(torch.arange(len(self.dataset)), work, "clean")

    def run(self, trial: Trial, clean: Tensor) -> AttackOutcome:
        """Attack the samples that are right when clean; clean: (N,) predictions."""
        started = time.perf_counter()
        seed_noise(derive(self.seed, "evaluate", trial.name, "noise"), self.subject.device)
        robust = clean == self.dataset.labels.cpu()
        attacked = robust.nonzero().flatten()

        def work(positions: Tensor) -> Tensor:
            outcome = self._attack(trial, positions)
            return torch.stack([outcome.broken, outcome.rejected], dim=1).cpu()

        flags = self._over(attacked, work, trial.name).view(-1, 2)
        robust[attacked] = ~flags[:, 0].bool()
        return AttackOutcome(
            attack=trial.name,
            parameters=parameters(trial.attack),
            threat=str(trial.threat),
            norm=trial.threat.norm,
            eps=trial.threat.eps,
            robust_accuracy=share(robust),
            interval=interval(robust),
            n=len(robust),
            seconds=time.perf_counter() - started,
            robust=tuple(robust.int().tolist()),
            rejected=int(flags[:, 1].sum()),
        )

    def _attack(self, trial: Trial, positions: Tensor) -> Outcome:
        x, y, index = self._take(positions)
        draws = Draws(self.seed).at("evaluate", trial.name).per_sample(index)
        model, surrogate = self.subject.model, self.subject.surrogate
        if surrogate is None:
            return judge(model, x, trial.attack(model, x, y, draws=draws), y, trial.threat, index=index)
        x_adv = trial.attack(surrogate, x, y, draws=draws)
        outcome = judge(model, x, x_adv, y, trial.threat, index=index)
        fooled = judge(surrogate, x, x_adv, y, trial.threat, index=index).broken
        again = (fooled & ~outcome.broken).nonzero().flatten()
        if not len(again):
            return outcome
        # The surrogate differs from the model by rounding: what broke it alone is sought on the model itself.
        x_adv = trial.attack(model, x[again], y[again], draws=draws.select(again))
        return outcome.replaced(again, judge(model, x[again], x_adv, y[again], trial.threat, index=index[again.cpu()]))

    def _take(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.dataset.float(positions, device=self.subject.device)
        y = self.dataset.labels[positions.to(self.dataset.labels.device)].to(self.subject.device)
        return x, y, self.dataset.index.cpu()[positions]

    def _over(self, positions: Tensor, work: Callable[[Tensor], Tensor], what: str) -> Tensor:
        parts: list[Tensor] = []
        done = 0
        for part in self.batches.run(work, positions):
            parts.append(part)
            done += len(part)
            if self.progress is not None:
                self.progress(what, done, len(positions))
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def share(flags: Tensor) -> float:
    """Return the share of flags: (N,) bool that hold."""
    return int(flags.sum()) / len(flags)


def interval(flags: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the share of flags: (N,) bool that hold."""
    return wilson(int(flags.sum()), len(flags))
