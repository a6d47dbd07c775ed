"""What a phase runs in: the run folder, the data, the machine; and the saving of checkpoints, metrics and status."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

import torch

from gossamer.data import DataSet
from gossamer.errors import RunError
from gossamer.runs import atomic, checkpoints, status
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.environment import differences
from gossamer.runs.layout import RunFolder
from gossamer.runs.metrics import MetricsLog
from gossamer.training.checkpointing import Training
from gossamer.training.devices import Place
from gossamer.training.phases import Phase
from gossamer.training.progress import Line, Progress
from gossamer.training.tracking import Tracking


def now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


DIVERGED = "lower training.optimizer.lr, clip the gradient (training.clip) or warm up"


@dataclass(kw_only=True)
class Job:
    """One process training one run.

    unlabelled: pseudo-labelled images, where phases fill batches with them; offset, seconds_before: steps and training
    time of earlier phases; tracking: who else hears of epochs; identity: what must be equal for a resumed run to end in
    the same bits; checkpoint_seconds: the least time between two checkpoints, 0 for one after every step.
    """

    run: RunFolder
    seed: int
    data: DataSet
    place: Place
    progress: Progress
    identity: Mapping[str, Any]
    checkpoint_seconds: float = 60.0
    tracking: Tracking = field(default_factory=Tracking)
    unlabelled: DataSet | None = None
    offset: int = 0
    seconds_before: float = 0.0
    started: str = field(default_factory=now)
    _saved: float = field(default_factory=time.monotonic)

    def recall(self, name: str, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Return the numbers that the run keeps under a name; where it keeps none, the first process measures them."""
        path, ranks = self.run.measured, self.place.ranks
        with ranks.first_then_others():
            kept = atomic.read_json(path) if path.exists() else {}
            if name not in kept and ranks.first:
                kept = {**kept, name: dict(measure())}
                atomic.write_json(path, kept)
        if name not in kept:
            raise RunError(
                str(path),
                expected=f"{name}, measured by the first process",
                got="nothing",
                remedy="see what the first process says; the run's folder must be on a disk that all see",
            )
        return kept[name]

    def log(self, line: Line, epochs: int) -> None:
        """Append the line of an epoch to the metrics, and show it; the first of several processes writes."""
        if not self.place.ranks.first:
            return
        MetricsLog(self.run).append(line)
        self.tracking.metrics(line)
        self.progress.epoch(line, epochs)

    def save(self, phase: Phase, training: Training) -> None:
        """Save a checkpoint now; raises RunError where the weights are not finite, and keeps the last good one."""
        _refuse_infinite_weights(phase, training)
        if not self.place.ranks.first:
            return
        meta = {
            "phase": phase.name,
            "metrics_offset": MetricsLog(self.run).offset,
            "identity": dict(self.identity),
            "training": training.meta(),
        }
        checkpoints.save(self.run, self.offset + training.step, training.tensors(), meta)
        self._saved = time.monotonic()
        self.report("running", phase, training)

    def save_if_due(self, phase: Phase, training: Training) -> None:
        """Save a checkpoint if the last one is old enough."""
        if self.place.ranks.first and time.monotonic() - self._saved >= self.checkpoint_seconds:
            self.save(phase, training)

    def report(
        self,
        state: Literal["running", "done", "interrupted", "failed"],
        phase: Phase,
        training: Training | None,
        message: str = "",
    ) -> None:
        """Write where the run stands; training: None before the phase has begun."""
        if not self.place.ranks.first:
            return
        epoch, step, seconds = 0, 0, 0.0
        if training is not None:
            epoch, step, seconds = min(training.epoch + 1, phase.epochs), training.step, training.seconds
        status.write(
            self.run,
            status.Status(
                state=state,
                phase=phase.name,
                epoch=epoch,
                step=self.offset + step,
                message=message,
                started=self.started,
                updated=now(),
                seconds_trained=self.seconds_before + seconds,
            ),
        )

    def report_done(self) -> None:
        """Write that the run is trained to its end, where that is not written yet."""
        seen = status.read(self.run) if self.place.ranks.first else None
        if seen is not None and seen.state != "done":
            status.write(self.run, replace(seen, state="done", message="", updated=now()))


def _refuse_infinite_weights(phase: Phase, training: Training) -> None:
    for name, value in training.model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RunError(
                f"{name} in {phase.name}, epoch {training.epoch + 1}, step {training.index}",
                expected="finite weights",
                got="an infinity or not a number",
                remedy=f"{DIVERGED}; the last good checkpoint is kept",
            )


def resumable(run: RunFolder, identity: Mapping[str, Any], *, allow_drift: bool, cut: bool = True) -> Checkpoint | None:
    """Return the checkpoint to go on from, and cut the metrics back to it where this process writes them.

    Raises RunError where machine, torch build, precision or thread count are not those of the checkpoint, since the
    run would then end in other bits; `allow_drift` accepts that.
    """
    found = checkpoints.load_last(run)
    if found is None:
        if cut:
            MetricsLog(run).cut(0)
        return None
    drift = differences(found.meta["identity"], identity)
    if drift and not allow_drift:
        raise RunError(
            f"resuming {run.path}",
            expected="the machine, torch build, precision, threads and number of processes that it began with",
            got="; ".join(drift),
            remedy="go on there, or accept other bits with --allow-numeric-drift",
        )
    if cut:
        MetricsLog(run).cut(found.meta["metrics_offset"])
    return found
