"""What watches training: probes that measure the network on a split, monitors that decide whether to go on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from gossamer.data.dataset import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.attacked_loss import attacked_loss
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.outcomes import Bench, share
from gossamer.evaluation.shards import Shard
from gossamer.evaluation.subject import Subject, at_rest, place_of
from gossamer.training.ranks import ALONE, Ranks
from gossamer.types import Attack

Action: TypeAlias = Literal["go", "stop", "restore"]
ACTIONS: tuple[Action, ...] = ("go", "stop", "restore")
Metrics: TypeAlias = Mapping[str, float | None]


@dataclass(frozen=True)
class LossUnder:
    """Stands for an attack among those of a probe: what is measured is the mean cross-entropy, not the accuracy."""

    attack: Attack


@dataclass(frozen=True)
class Probe:
    """What is measured on a part of the data every few epochs, as metrics named part/attack: clean and under attacks.

    Accuracies, or losses of attacks that are `LossUnder`; these are called attack/loss (`with_losses`).
    """

    part: str
    data: DataSet
    attacks: Mapping[str, Attack | LossUnder]
    every: int = 1

    @property
    def robust(self) -> dict[str, Attack]:
        """The attacks under which accuracy is measured, by name."""
        return {name: each for name, each in self.attacks.items() if not isinstance(each, LossUnder)}

    def with_losses(self, *names: str) -> "Probe":
        """Return the same probe, which measures the loss under the attacks of these names too, as NAME/loss."""
        losses = {f"{name}/loss": LossUnder(each) for name, each in self.robust.items() if name in names}
        return replace(self, attacks={**self.attacks, **losses})

    def __call__(
        self, epoch: int, model: nn.Module, *, last: bool, seed: int, ranks: Ranks = ALONE
    ) -> dict[str, float | None]:
        """Return the measures of an epoch (0-based), or None under each name where it is not its turn.

        ranks: each of several measures its part of the data, and all return what the whole gives.
        """
        names = [f"{self.part}/clean", *(f"{self.part}/{name}" for name in self.attacks)]
        if (epoch + 1) % self.every and not last:
            return dict.fromkeys(names)
        shard = Shard(ranks.rank, ranks.world) if len(self.data) >= ranks.world else Shard()
        shares = self._shares(model, shard, seed)
        losses = {
            f"{self.part}/{name}": attacked_loss(model, shard.part(self.data), each.attack, seed=seed)
            for name, each in self.attacks.items()
            if isinstance(each, LossUnder)
        }
        if shard.of > 1:
            n = len(shard.part(self.data))
            shares = _over_parts({name: round(value * n) for name, value in shares.items()}, n, ranks)
            losses = _over_parts({name: value * n for name, value in losses.items()}, n, ranks)
        measured = {**shares, **losses}
        return {name: measured[name] for name in names}

    def _shares(self, model: nn.Module, shard: Shard, seed: int) -> dict[str, float]:
        """Return the accuracies on a shard of the data, clean and under every attack."""
        attacks = self.robust
        clean = f"{self.part}/clean"
        if not attacks:
            return {clean: _clean_accuracy(model, shard.part(self.data), seed)}
        seen = evaluate(model, self.data, attacks, seed=seed, shard=shard)
        robust = zip(attacks, seen.attacks, strict=True)
        return {clean: seen.clean_accuracy, **{f"{self.part}/{name}": each.robust_accuracy for name, each in robust}}


def _over_parts(sums: Mapping[str, float], n: int, ranks: Ranks) -> dict[str, float]:
    """Return the means over the whole, given the sums over this rank's n images."""
    if not sums:
        return {}
    parts = {str(place): torch.tensor(each, dtype=torch.float64) for place, each in enumerate(sums.values())}
    total = ranks.sums({**parts, "n": torch.tensor(n)})
    return {name: float(total[str(place)]) / float(total["n"]) for place, name in enumerate(sums)}


def _clean_accuracy(model: nn.Module, data: DataSet, seed: int) -> float:
    place = place_of(model)
    batches = Batches(default_batch_size(math.prod(data.image_shape), place))
    with at_rest(model) as resting:
        subject = Subject(model=resting, surrogate=None, device=place)
        logits = Bench(subject, data, batches, seed, None).clean()
    return share(logits.argmax(dim=1) == data.labels.cpu())


@dataclass(frozen=True)
class Verdict:
    """What a monitor decides: go on, stop, or stop and take a named state as the end."""

    action: Action = "go"
    state: str | None = None
    reason: str = ""


GO = Verdict()


class Monitor(Protocol):
    """Decides after each epoch; what it remembers is JSON-able and checkpointed."""

    def __call__(self, epoch: int, metrics: Metrics) -> Verdict:
        """Return what to do after an epoch (0-based) with these metrics."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what it remembered."""
        ...


class Highest:
    """Remembers the highest value of one metric and when it was seen."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.value: float | None = None
        self.epoch = -1

    def update(self, epoch: int, metrics: Metrics) -> bool:
        """Return whether this epoch is the best so far; raises ConfigError if the metric is unknown."""
        if self.metric not in metrics:
            raise ConfigError(
                "metric to select by",
                expected=f"one of {', '.join(metrics)}",
                got=self.metric,
                remedy="name a metric of this run, or add a monitor that measures it",
            )
        value = metrics[self.metric]
        if value is None or (self.value is not None and value <= self.value):
            return False
        self.value, self.epoch = value, epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the value and its epoch."""
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the value and its epoch back."""
        self.value, self.epoch = state["value"], state["epoch"]


class EarlyStop(Highest):
    """Stop once a metric has not risen for `patience` epochs; end with the best state if `restore`."""

    def __init__(self, metric: str, patience: int, *, restore: bool = True) -> None:
        super().__init__(metric)
        self._patience = patience
        self._restore = restore

    def __call__(self, epoch: int, metrics: Metrics) -> Verdict:
        """Return stop (or restore) after `patience` epochs without a rise, go otherwise."""
        self.update(epoch, metrics)
        # A metric of every few epochs is none between: it cannot have risen.
        if metrics[self.metric] is None or epoch - self.epoch < self._patience:
            return GO
        reason = f"{self.metric} has not risen for {self._patience} epochs"
        return Verdict("restore", "best", reason) if self._restore else Verdict("stop", None, reason)


class Overfitting(Highest):
    """Catastrophic overfitting: a robust accuracy falls more than `drop` below its highest value so far.

    Single-step training can lose all robustness to stronger attacks within an epoch (Wong et al., ICLR 2020, who stop
    where the accuracy under PGD on a training batch falls by 0.2). action: `report` goes on; `restore` ends with the
    best state.
    """

    def __init__(self, metric: str, drop: float, action: Literal["report", "stop", "restore"] = "report") -> None:
        super().__init__(metric)
        self._drop = drop
        self._action: Literal["report", "stop", "restore"] = action
        self._fallen: float | None = None

    def __call__(self, epoch: int, metrics: Metrics) -> Verdict:
        """Return what `action` says after a fall, go otherwise, and where the metric was not measured."""
        self.update(epoch, metrics)
        value = metrics[self.metric]
        self._fallen = None if value is None or self.value is None else self.value - value
        if self._action == "report" or not self._overfits:
            return GO
        reason = f"catastrophic overfitting, {self.metric} fell from {self.value:.3f} to {value:.3f}"
        return Verdict("restore", "best", reason) if self._action == "restore" else Verdict("stop", None, reason)

    def measures(self) -> Mapping[str, float | None]:
        """Return by how much the metric lies below its highest value, and 1 under `catastrophic_overfitting` or 0."""
        overfits = None if self._fallen is None else float(self._overfits)
        return {"overfitting_drop": self._fallen, "catastrophic_overfitting": overfits}

    @property
    def _overfits(self) -> bool:
        return self._fallen is not None and self._fallen > self._drop


@runtime_checkable
class Measuring(Protocol):
    """A monitor that has something to tell of each epoch."""

    def measures(self) -> Mapping[str, float | None]:
        """Return what it saw in the last epoch, for the metrics log."""
        ...


MakeMonitors: TypeAlias = Callable[[], Sequence[Monitor]]


def decide(monitors: Sequence[Monitor], epoch: int, metrics: Metrics) -> Verdict:
    """Ask every monitor, and return the first verdict that is not to go on."""
    verdicts = [monitor(epoch, metrics) for monitor in monitors]
    return next((verdict for verdict in verdicts if verdict.action != "go"), GO)
