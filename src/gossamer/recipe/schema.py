"""What a recipe may say: every field of a run, typed, with its default; nothing here acts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from gossamer.attacks.crafting import BatchNormMode
from gossamer.errors import ConfigError
from gossamer.objectives.registry import default_batch_norm
from gossamer.threat import ThreatModel, parse_eps


def _threat_text(value: object) -> object:
    return str(ThreatModel.parse(value)) if isinstance(value, str) else value


def _eps(value: object) -> object:
    return parse_eps(value) if isinstance(value, str | float | int) else value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str | float | int) else value


Eps = Annotated[float, BeforeValidator(_eps)]
ThreatText = Annotated[str, BeforeValidator(_threat_text)]


class Section(BaseModel):
    """A part of a recipe; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Component(Section):
    """A thing by name, with its own options beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options beside the name."""
        return dict(self.model_extra or {})


class Split(Section):
    """What is held out of the training part: a share in (0, 1) or a count; 0 trains on everything."""

    held_out: Annotated[float | int, Field(ge=0)] = 0
    seed: int = 0


class AugmentationFields(Section):
    """What happens to training images; see `gossamer.data.Augmentation`."""

    flip: float = 0.0
    crop: int = 0
    shift: float = 0.0
    rotation: float = 0.0


class Unlabelled(Section):
    """Images that fill `share` of every batch, with pseudo-labels.

    path: a .safetensors file (key x) or a folder of images; labels: a key of the file, or a .safetensors file (key y);
    teacher: a run folder, whose network is asked once before training. One of the two gives the pseudo-labels.
    partial: that labels may leave classes out.
    """

    path: str
    labels: str | None = None
    teacher: str | None = None
    partial: bool = False
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> "Unlabelled":
        if (self.labels is None) == (self.teacher is None):
            raise ConfigError(
                "data.unlabelled",
                expected="labels or teacher, one of the two",
                got="both" if self.labels else "neither",
                remedy="write labels: y for a key of the file, or teacher: runs/NAME",
            )
        return self


class Data(Component):
    """A data set. train_n: train on a class-balanced choice of that many images only."""

    split: Split = Split()
    train_n: PositiveInt | None = None
    augmentation: AugmentationFields = AugmentationFields()
    unlabelled: Unlabelled | None = None


class Model(Component):
    """A network. normalize: put the data set's published mean and standard deviation inside it."""

    normalize: bool = False


class TrainingAttack(Section):
    """The attack of training. name: None takes the objective's own; further fields are the attack's options.

    batch_norm: what batch norm does while crafting; left out, what the objective was published with, written out when
    the recipe is read (train for fast-at, eval for all others). fast: craft on the folded copy of the network where
    batch_norm is eval.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | None = None
    batch_norm: BatchNormMode = "eval"
    fast: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """The attack's own options."""
        return dict(self.model_extra or {})


class Optimizer(Section):
    """How weights move; see `gossamer.training.optimizers.OptimizerSpec`. None takes the method's published value."""

    kind: Literal["sgd", "sgdw", "decay-first-sgd", "adam", "adamw"] | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    nesterov: bool | None = None


class AverageFields(Section):
    """An average of weights; see `gossamer.training.averages.AverageSpec`."""

    kind: Literal["ema", "swa"]
    decay: float = 0.999
    start: NonNegativeInt = 0


class ProbeAttack(Component):
    """An attack of a probe with options of its own; eps: the threat's if left out; label: what its metric is called."""

    eps: Eps | None = None
    label: str | None = None


class ProbeFields(Section):
    """Accuracy measured every few epochs, on `n` samples of a part, clean and under each attack.

    An attack is a name, or {name: pgd, steps: 20, eps: 4/255}; the metric is called PART/NAME, or by its `label`.
    losses: the mean cross-entropy under each attack too, as PART/NAME/loss.
    """

    part: Literal["held_out", "train", "test"] = "held_out"
    attacks: tuple[ProbeAttack | str, ...] = ()
    every: PositiveInt = 1
    n: PositiveInt | None = None
    losses: bool = False


class EarlyStopFields(Section):
    """Stop once `metric` has not risen for `patience` epochs; restore: end with the best state (needs `select`)."""

    metric: str
    patience: PositiveInt
    restore: bool = False


class OverfittingFields(Section):
    """Watch a probed robust accuracy for catastrophic overfitting: a fall of more than `drop` below its best.

    action: restore ends with the best state (needs `select`).
    """

    metric: str
    drop: Annotated[float, Field(gt=0, lt=1)] = 0.2
    action: Literal["report", "stop", "restore"] = "report"


class WeightPerturbationFields(Section):
    """Adversarial weight perturbation; see `gossamer.training.weight_perturbation.WeightPerturbation`."""

    gamma: float = 0.005
    start: NonNegativeInt = 0


class Training(Section):
    """How long and how to train. select: the metric whose highest value chooses the state that ships."""

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 128
    optimizer: Optimizer = Optimizer()
    schedule: Component = Component(name="steps")
    clip: Annotated[float, Field(gt=0)] | None = None
    average: AverageFields | None = None
    probes: tuple[ProbeFields, ...] = ()
    early_stop: EarlyStopFields | None = None
    overfitting: OverfittingFields | None = None
    penalties: tuple[Component, ...] = ()
    weight_perturbation: WeightPerturbationFields | None = None
    select: str | None = None


class Machine(Section):
    """On what to train, and who hears of it. trackers: any of tensorboard, mlflow, wandb; tensorboard: it too.

    Device, checkpoint_seconds, tensorboard and trackers do not change what a run is called.
    """

    device: str = "auto"
    threads: PositiveInt | None = None
    precision: Literal["float32", "bf16", "float64"] = "float32"
    sync_batch_norm: bool = False
    channels_last: bool = True
    compile: bool = False
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    tensorboard: bool = False
    trackers: Annotated[tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(_several)] = ()

    @property
    def all_trackers(self) -> tuple[str, ...]:
        """Every tracker asked for, once."""
        asked = ("tensorboard", *self.trackers) if self.tensorboard else self.trackers
        return tuple(dict.fromkeys(asked))


class Evaluation(Section):
    """One evaluation after training. eps: radii, the threat's own if left out; n: samples, all if left out.

    part: of the data; what chooses between runs is measured on held_out, never on test.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    attack: str
    part: Literal["test", "held_out"] = "test"
    eps: Annotated[tuple[Eps, ...] | None, BeforeValidator(_several)] = None
    n: PositiveInt | None = None
    batch_size: PositiveInt | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The attack's own options."""
        return dict(self.model_extra or {})


class Recipe(Section):
    """One run, wholly: data, model, threat, objective, method, training, evaluation and seed.

    start: a finished run, a published folder or a .safetensors file, whose network takes the place of the phase
    `pretrain` of methods that have one.
    """

    name: str = "custom"
    claim: str = ""
    seed: NonNegativeInt = 0
    data: Data
    model: Model
    threat: ThreatText
    objective: Component = Component(name="natural")
    attack: TrainingAttack = TrainingAttack()
    method: Component = Component(name="dense")
    start: str | None = None
    training: Training = Training()
    machine: Machine = Machine()
    evaluation: tuple[Evaluation, ...] = (Evaluation(attack="pgd-50-10"),)

    @model_validator(mode="after")
    def _published_batch_norm(self) -> "Recipe":
        published = default_batch_norm(self.objective.name)
        if "batch_norm" not in self.attack.model_fields_set and self.attack.batch_norm != published:
            # Written out here, so that a stored recipe says what it did whatever later versions take as published.
            object.__setattr__(self, "attack", self.attack.model_copy(update={"batch_norm": published}))
        return self
