"""What was measured? The versioned records of an evaluation and of the network that was evaluated."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gossamer.errors import RunError
from gossamer.runs import atomic, records
from gossamer.runs.layout import RunFolder
from gossamer.runs.notices import Notice

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Which images: `part` such as "test", `selection` the rule that chose n of them, `checksum` of the whole."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    part: str
    checksum: str
    selection: str
    n: int


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """Which network: weights of the dense parent, those of them that are not zero, and their share."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    weights: int
    nonzero: int
    density: float


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The n samples without attack, in order; index: position in the data set; clean_correct: 0 or 1."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    index: tuple[int, ...]
    label: tuple[int, ...]
    clean_prediction: tuple[int, ...]
    clean_correct: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.index), len(self.label), len(self.clean_prediction), len(self.clean_correct)}
        _hold(len(lengths) == 1, "samples", "one entry a sample in every list", f"lengths {sorted(lengths)}")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One member of an ensemble of attacks.

    attacked: samples the members before left standing; broken: those of them that fell; robust_accuracy: after it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attack: str
    parameters: dict[str, Any]
    attacked: int
    broken: int
    robust_accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AttackOutcome:
    """What one attack left standing.

    threat: "linf:8/255"; eps: in pixel units of [0, 1]; robust: 1 where the sample is classified rightly both clean
    and attacked; rejected: points that left ball or box and were not counted; interval: 95 %; kind: what the
    evaluation uses the attack for, where it says so; borderline: samples whose verdict rounding may change; stages:
    of an ensemble of attacks, each member in order.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    attack: str
    parameters: dict[str, Any]
    threat: str
    norm: str
    eps: float
    robust_accuracy: float
    interval: Interval
    n: int
    seconds: float
    robust: tuple[int, ...]
    rejected: int
    kind: str | None = None
    borderline: int = 0
    stages: tuple[Stage, ...] | None = None

    def __post_init__(self) -> None:
        subject = f"attack {self.attack}"
        _hold(len(self.robust) == self.n, subject, f"{self.n} outcomes", len(self.robust))
        _check_share(subject, self.robust_accuracy)
        if self.n:
            counted = sum(self.robust) / self.n
            agrees = math.isclose(counted, self.robust_accuracy, abs_tol=1e-6)
            _hold(agrees, subject, f"robust_accuracy {counted}, as the outcomes say", self.robust_accuracy)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: its headline, and every sample's outcome under every attack.

    Accuracies are shares in [0, 1], intervals 95 %, eps in pixel units of [0, 1]; the headline (`attack`,
    `robust_accuracy`, `interval`, `eps`) is the one number to quote; notices: what else its reader must know. Raises
    RunError where the parts contradict.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/evaluation/1"
    run: str
    dataset: Dataset
    model: EvaluatedModel
    n: int
    seed: int
    clean_accuracy: float
    clean_interval: Interval
    robust_accuracy: float
    interval: Interval
    attack: str
    attack_parameters: dict[str, Any]
    threat: str
    eps: float
    density: float
    nonzero: int
    weights: int
    seconds: float
    batch_size: int
    environment: dict[str, Any]
    samples: Samples
    attacks: tuple[AttackOutcome, ...]
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        subject = f"evaluation of {self.run}"
        _hold(len(self.samples.index) == self.n, subject, f"{self.n} samples", len(self.samples.index))
        for share in (self.clean_accuracy, self.robust_accuracy, self.density):
            _check_share(subject, share)
        for outcome in self.attacks:
            _hold(outcome.n == self.n, subject, f"{self.n} outcomes of {outcome.attack}", outcome.n)
            revived = sum(r > c for r, c in zip(outcome.robust, self.samples.clean_correct, strict=True))
            _hold(not revived, subject, "no robust sample that is wrong when clean", f"{revived} of them")

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as values that JSON has."""
        return records.to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> "Evaluation":
        """Return the evaluation in `value`; raises RunError for another schema or a contradiction."""
        return records.from_json(cls, value, subject="evaluation")


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Weights that are not zero, counted between edges (one more than counts); zeros apart."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    zeros: int

    def __post_init__(self) -> None:
        fits = len(self.edges) == len(self.counts) + 1
        _hold(fits, "histogram", f"{len(self.counts) + 1} edges", len(self.edges))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer; multiply_adds: of the dense layer for one image; block: the group it is drawn with.

    kernels: how many kernels, an input and an output channel each, keep 0, 1, ... of their weights; of convolutions
    of more than one weight a kernel, and not in records of before it was counted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    block: str
    shape: tuple[int, ...]
    weights: int
    nonzero: int
    density: float
    multiply_adds: int
    kept_multiply_adds: int
    histogram: Histogram | None = None
    kernels: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The sums over all layers."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    weights: int
    nonzero: int
    density: float
    multiply_adds: int
    kept_multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that ships; work_ratio: dense / kept multiply-adds, None where none are kept."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/network/1"
    layers: tuple[Layer, ...]
    totals: Totals
    work_ratio: float | None
    histogram: Histogram

    def to_json(self) -> dict[str, Any]:
        """Return the network as values that JSON has."""
        return records.to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> "Network":
        """Return the network in `value`; raises RunError for another schema."""
        return records.from_json(cls, value, subject="network")


def write_evaluation(run: RunFolder, name: str, evaluation: Evaluation) -> Path:
    """Write `results/NAME.json` and return its path; raises RunError where the file system refuses."""
    path = run.result(name)
    records.write(path, evaluation)
    return path


def read_evaluation(path: Path) -> Evaluation:
    """Return the evaluation in a file; raises RunError if it is missing, damaged or of another schema."""
    return records.read(Evaluation, path)


def write_network(run: RunFolder, network: Network) -> Path:
    """Write `results/network.json` and return its path; raises RunError where the file system refuses."""
    path = run.result("network")
    records.write(path, network)
    return path


def read_network(run: RunFolder) -> Network:
    """Return the network of a run; raises RunError if it is missing, damaged or of another schema."""
    return records.read(Network, run.result("network"))


def evaluation_files(run: RunFolder) -> list[Path]:
    """Return the files under results/ that are evaluations of any version, or too damaged to tell, by name."""
    return [path for path in records.files(run.results) if _may_be_evaluation(path)]


def _may_be_evaluation(path: Path) -> bool:
    try:
        value = atomic.read_json(path)
    except RunError:
        return True
    return isinstance(value, dict) and str(value.get("schema", "")).startswith("gossamer/evaluation/")


def _check_share(subject: str, share: float) -> None:
    _hold(0.0 <= share <= 1.0, subject, "a share in [0, 1]", share)


def _hold(holds: bool, subject: str, expected: str, got: object) -> None:
    if not holds:
        raise RunError(subject, expected=expected, got=got, remedy="measure again: the parts contradict each other")
