"""What one stretch of training is: a value that a method builds and the loop runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

from gossamer.attacks.crafting import BatchNormMode
from gossamer.data.augment import Augmentation
from gossamer.errors import RunError
from gossamer.sparsity import NoSparsifier, Sparsifier
from gossamer.training.averages import AverageSpec
from gossamer.training.monitors import Monitor, Probe
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.schedules import Schedule
from gossamer.types import Attack, Objective

States: TypeAlias = Mapping[str, Mapping[str, Tensor]]
Start: TypeAlias = Callable[[nn.Module, States], None]


def fresh(model: nn.Module, states: States) -> None:
    """Start from the model's own initial weights."""


@dataclass(frozen=True)
class FromState:
    """Start from a named state of an earlier phase, such as `pretrain.end`."""

    name: str

    def __call__(self, model: nn.Module, states: States) -> None:
        """Load the state strictly; raises RunError where no phase gave it."""
        if self.name not in states:
            raise RunError(
                f"state {self.name}",
                expected=f"one of {', '.join(states) or 'the states of earlier phases'}",
                got="no such state",
                remedy="let an earlier phase give it",
            )
        model.load_state_dict(dict(states[self.name]))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training. It takes named states and gives named states: `NAME.end`, `NAME.best`.

    epochs: passes over the training data; attack_bn: what batch norm does while crafting; fast: craft on the folded
    copy where that is allowed; sparsifier, monitors: made anew for each attempt; select: the metric whose highest
    value names the state `best`; clip: largest norm of the gradient, after dropped weights were masked from it.
    """

    name: str
    epochs: int
    batch_size: int
    objective: Objective
    attack: Attack | None
    attack_bn: BatchNormMode = "eval"
    fast: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    schedule: Schedule
    sparsifier: Callable[[], Sparsifier] = NoSparsifier
    start: Start = fresh
    clip: float | None = None
    average: AverageSpec | None = None
    probes: Sequence[Probe] = ()
    monitors: Callable[[], Sequence[Monitor]] = tuple
    select: str | None = None
