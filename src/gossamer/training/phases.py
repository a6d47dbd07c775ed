"""What one stretch of training is: a value that a method builds and the loop runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from gossamer.attacks.crafting import BatchNormMode
from gossamer.data.augment import Augmentation
from gossamer.sparsity import NoSparsifier, Sparsifier
from gossamer.training.averages import AverageSpec
from gossamer.training.monitors import Monitor, Probe
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.schedules import Schedule
from gossamer.training.weight_perturbation import WeightPerturbation
from gossamer.types import Attack, Objective

if TYPE_CHECKING:
    from gossamer.training.scene import Scene

States: TypeAlias = Mapping[str, Mapping[str, Tensor]]
Start: TypeAlias = Callable[[nn.Module, "Scene"], None]
Penalty: TypeAlias = Callable[[nn.Module], Tensor]

PRETRAIN = "pretrain"
"""The first phase of a method whose other phases go on from a trained network, the state `pretrain.end`."""


def fresh(model: nn.Module, scene: "Scene") -> None:
    """Start from the model's own initial weights."""


@runtime_checkable
class Rehearsed(Protocol):
    """A start that can tell beforehand what it could not do to such a network."""

    def rehearse(self, model: nn.Module, image_shape: tuple[int, ...]) -> None:
        """Raise ConfigError; model: a throwaway one, untrained; image_shape: (C, H, W)."""
        ...


@dataclass(frozen=True)
class FromState:
    """Start from a named state of an earlier phase, such as `pretrain.end` or `train.epoch-8`."""

    name: str

    def __call__(self, model: nn.Module, scene: "Scene") -> None:
        """Load the state strictly; raises RunError where no phase gave it."""
        model.load_state_dict(dict(scene.state(self.name)))


@dataclass(frozen=True)
class FromTensors:
    """Start from tensors that no phase of the run gave, under the names of the network's own."""

    tensors: Mapping[str, Tensor]

    def __call__(self, model: nn.Module, scene: "Scene") -> None:
        """Load the tensors strictly."""
        model.load_state_dict(dict(self.tensors))


def epoch_state(phase: str, epoch: int) -> str:
    """Return the name of the state that a phase publishes after `epoch` epochs; 0: before its first step."""
    return f"{phase}.epoch-{epoch}"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training. It takes named states and gives named states: `NAME.end`, `NAME.best`, `NAME.epoch-E`.

    epochs: passes over the training data; 0: `start` alone, whose outcome is the phase's end. replays: steps on every
    batch, one after the other (free adversarial training). unlabelled_share: of every batch, drawn from the run's
    pseudo-labelled images. attack_bn: what batch norm does while crafting; fast: craft
    on the folded copy where that is allowed; sparsifier, monitors: made anew for each attempt; select: the metric
    whose highest value names the state `best`; clip: largest norm of the gradient, after dropped weights were masked
    from it; publish: epochs done after which the weights are kept as a state; start: sets the weights, from states and
    data; equip: completes the objective with what only a run has, such as a teacher; adapt: the attack of the
    epoch that begins; penalties: terms added to the loss; perturbation: of the weights, around loss and gradient.
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
    equip: Callable[[Objective, "Scene"], Objective] | None = None
    adapt: Callable[[Attack | None, Sparsifier], Attack | None] | None = None
    replays: int = 1
    unlabelled_share: float = 0.0
    publish: Sequence[int] = ()
    penalties: Sequence[Penalty] = ()
    perturbation: WeightPerturbation | None = None
    clip: float | None = None
    average: AverageSpec | None = None
    probes: Sequence[Probe] = ()
    monitors: Callable[[], Sequence[Monitor]] = tuple
    select: str | None = None
