"""How the learning rate moves: each schedule is a factor of the base rate, a function of how far training is."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gossamer.errors import ConfigError
from gossamer.options import construct


class Schedule(Protocol):
    """A factor of the base learning rate."""

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the factor at `step` (0-based) of `total` steps, `per_epoch` to an epoch."""
        ...


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Multiply by `factor` at each milestone, a share of all steps: floor(total * share), as published for BCS."""

    milestones: Sequence[float] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        if any(not 0.0 <= milestone <= 1.0 for milestone in self.milestones):
            raise ConfigError(
                "training.schedule.milestones",
                expected="shares of the whole training in [0, 1]",
                got=list(self.milestones),
                remedy="write [0.5, 0.75] for epochs 100 and 150 of 200",
            )

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return factor ** (milestones passed)."""
        return self.factor ** sum(step >= int(total * milestone) for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 to `floor`, moving once an epoch or at every step.

    lag: epochs by which it is late; 1 as published for HYDRA, whose cosine is of (epoch - 1) with epochs from 0.
    """

    floor: float = 0.0
    per_epoch: bool = False
    lag: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.lag < math.inf:
            raise ConfigError(
                "training.schedule.lag", expected="a number of epochs >= 0", got=self.lag, remedy="leave it out"
            )

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return floor + (1 - floor) * (1 + cos(pi * t)) / 2 at t = share of training done, less the lag."""
        done = (step // per_epoch) * per_epoch if self.per_epoch else step
        angle = math.pi * (done - self.lag * per_epoch) / max(1, total)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(angle))


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Up from 0 to 1 in a straight line until `peak`, a share of all steps, then down to 0 (Wong et al., 2020)."""

    peak: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 < self.peak < 1.0:
            raise ConfigError(
                "training.schedule.peak",
                expected="a share of the training in (0, 1)",
                got=self.peak,
                remedy="write 0.4 to reach the full rate after 40 % of the steps",
            )

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the height of the triangle at the middle of the step, so that no step has rate 0."""
        done = (step + 0.5) / total
        return done / self.peak if done < self.peak else (1.0 - done) / (1.0 - self.peak)


@dataclass(frozen=True)
class Constant:
    """The base rate throughout."""

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """A straight line from near 0 over the first `epochs`, then another schedule over the rest."""

    epochs: float
    then: Schedule

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return (step + 1) / warm-up steps, then the other schedule counted from the end of the warm-up."""
        warm = round(self.epochs * per_epoch)
        if step < warm:
            return (step + 1) / warm
        return self.then(step - warm, max(1, total - warm), per_epoch)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Another schedule as if training went on for `epochs`: the beginning of a longer one."""

    schedule: Schedule
    epochs: int

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the other schedule's factor, counted in the whole training."""
        return self.schedule(step, self.epochs * per_epoch, per_epoch)


@dataclass(frozen=True, kw_only=True)
class Continued:
    """Another schedule from where it stood after `epochs`: what is left of a training begun elsewhere."""

    schedule: Schedule
    epochs: int

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the other schedule's factor, both counted with the epochs already done."""
        done = self.epochs * per_epoch
        return self.schedule(step + done, total + done, per_epoch)


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """Another schedule, from its beginning to its end in each of `stages` equal parts of training."""

    schedule: Schedule
    stages: int

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the other schedule's factor, counted within the part that the step lies in."""
        stage = min(self.stages - 1, step * self.stages // max(1, total))
        first, end = (-(-part * total // self.stages) for part in (stage, stage + 1))
        return self.schedule(step - first, max(1, end - first), per_epoch)


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": Constant,
    "steps": Steps,
    "cosine": Cosine,
    "one-cycle": OneCycle,
}


def build(name: str, *, warmup_epochs: float = 0.0, **options: Any) -> Schedule:
    """Return a schedule by name, with a linear warm-up in front if asked; raises ConfigError."""
    if name not in SCHEDULES:
        raise ConfigError(
            "training.schedule.name",
            expected=f"one of {', '.join(SCHEDULES)}",
            got=name,
            remedy="choose a schedule from the list",
        )
    schedule = construct(SCHEDULES[name], options, "training.schedule")
    return schedule if warmup_epochs == 0 else Warmup(epochs=_checked_epochs(warmup_epochs), then=schedule)


def _checked_epochs(epochs: object) -> float:
    if isinstance(epochs, int | float) and not isinstance(epochs, bool) and 0.0 < epochs < math.inf:
        return epochs
    raise ConfigError(
        "training.schedule.warmup_epochs", expected="a number of epochs >= 0", got=repr(epochs), remedy="write 5, say"
    )
