"""What becomes of every sample, clean and under one attack."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gossamer.data import DataSet
from gossamer.evaluation.batches import Batches
from gossamer.evaluation.hunt import Found, Hunt, hunt
from gossamer.evaluation.judge import predict
from gossamer.evaluation.ledger import Ledger
from gossamer.evaluation.standing import Progress, Teller
from gossamer.evaluation.subject import Subject, seed_noise
from gossamer.evaluation.trials import Trial, members, parameters
from gossamer.intervals import wilson
from gossamer.runs.results import AttackOutcome, Stage
from gossamer.seeding import derive
from gossamer.types import Attack


@dataclass(frozen=True)
class Bench:
    """A subject and the samples it is measured on."""

    subject: Subject
    dataset: DataSet
    batches: Batches
    seed: int
    progress: Progress | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def clean(self) -> Tensor:
        """Return the logits on the clean samples: (N, K), on the CPU."""
        kept = self.ledger.finished.get("clean")
        if kept is not None:
            return kept["logits"]
        started = time.perf_counter()
        seed_noise(derive(self.seed, "evaluate", "clean"), self.subject.device)
        tell = Teller(self.progress, "clean", len(self.dataset), 0, len(self.dataset))
        parts: list[Tensor] = []
        done = 0
        for part in self.batches.run(self._logits, torch.arange(len(self.dataset))):
            parts.append(part)
            done += len(part)
            tell(done, 0)
        logits = torch.cat(parts)
        seconds = torch.tensor(time.perf_counter() - started, dtype=torch.float64)
        self.ledger.finish("clean", {"logits": logits, "seconds": seconds})
        return logits

    def run(self, trial: Trial, clean: Tensor) -> AttackOutcome:
        """Attack the samples that are right when clean, member by member; clean: (N, K) logits."""
        robust = clean.argmax(dim=1) == self.dataset.labels.cpu()
        stages: list[Stage] = []
        rejected = borderline = 0
        seconds = 0.0
        for name, attack in members(trial):
            attacked = robust.nonzero().flatten()
            found = self._seek(trial, name, attack, attacked, clean)
            robust[attacked] = ~found.broken
            rejected += int(found.rejected.sum())
            borderline += int(found.borderline.sum())
            seconds += found.seconds
            stages.append(_stage(name, attack, robust, found))
        return AttackOutcome(
            attack=trial.name,
            parameters=parameters(trial.attack),
            threat=str(trial.threat),
            norm=trial.threat.norm,
            eps=trial.threat.eps,
            robust_accuracy=share(robust),
            interval=interval(robust),
            n=len(robust),
            seconds=seconds,
            robust=tuple(robust.int().tolist()),
            rejected=rejected,
            borderline=borderline,
            stages=tuple(stages) if len(stages) > 1 else None,
        )

    def _seek(self, trial: Trial, name: str, attack: Attack, attacked: Tensor, clean: Tensor) -> Found:
        keys = ("evaluate", trial.name) if name == trial.name else ("evaluate", trial.name, name)
        job = Hunt(
            stage=f"{trial.name} at {trial.threat}" + ("" if name == trial.name else f": {name}"),
            keys=keys,
            attack=attack,
            threat=trial.threat,
            positions=attacked,
            clean=clean,
        )
        kept = self.ledger.finished.get(job.stage)
        if kept is not None:
            return Found.of(kept)
        found = hunt(self.subject, self.dataset, self.batches, job, self.seed, self.ledger, self.progress)
        self.ledger.finish(job.stage, found.tensors())
        return found

    def _logits(self, positions: Tensor) -> Tensor:
        x = self.dataset.float(positions, device=self.subject.device)
        return predict(self.subject.model, x, index=self.dataset.index.cpu()[positions]).float().cpu()


def _stage(name: str, attack: Attack, robust: Tensor, found: Found) -> Stage:
    return Stage(
        attack=name,
        parameters=parameters(attack),
        attacked=len(found.broken),
        broken=int(found.broken.sum()),
        robust_accuracy=share(robust),
        seconds=found.seconds,
    )


def share(flags: Tensor) -> float:
    """Return the share of flags: (N,) bool that hold."""
    return int(flags.sum()) / len(flags)


def interval(flags: Tensor) -> tuple[float, float]:
    """Return the 95 % interval of the share of flags: (N,) bool that hold."""
    return wilson(int(flags.sum()), len(flags))
