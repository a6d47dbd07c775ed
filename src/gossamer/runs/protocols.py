"""What did an evaluation protocol measure? The versioned records of tables, matrices, trials and corruptions."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gossamer.errors import RunError
from gossamer.runs import records
from gossamer.runs.results import Dataset, EvaluatedModel, Interval


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of n samples, as a share in [0, 1] with its 95 % interval."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    value: float
    interval: Interval
    n: int

    def __post_init__(self) -> None:
        low, high = self.interval
        _hold(0 <= low <= self.value <= high <= 1, "share", "a value in [0, 1], inside its interval", self.value)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several trials: their values, mean, and standard deviation (n - 1), None where there is one trial."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    values: tuple[float, ...]
    mean: float
    deviation: float | None

    def __post_init__(self) -> None:
        holds = bool(self.values) and min(self.values) - 1e-9 <= self.mean <= max(self.values) + 1e-9
        _hold(holds, "trials", "a mean among their values", self.mean)


@dataclass(frozen=True, kw_only=True)
class EffortPoint:
    """An attack of so many steps and restarts.

    raw: what this attack alone left standing; cumulative: what no attack of at most as many steps and restarts
    broke; robust: 1 where a sample stood, raw.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    steps: int
    restarts: int
    raw: Share
    cumulative: Share
    robust: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EffortRow:
    """One model under rising effort; points: by restarts, then steps, rising."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    clean: Share
    points: tuple[EffortPoint, ...]


@dataclass(frozen=True, kw_only=True)
class EffortTable:
    """Robust accuracy over the steps and restarts of one attack; attack: its other parameters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/effort/1"
    dataset: Dataset
    seed: int
    threat: str
    eps: float
    attack: dict[str, Any]
    steps: tuple[int, ...]
    restarts: tuple[int, ...]
    rows: tuple[EffortRow, ...]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        for row in self.rows:
            count = len(self.steps) * len(self.restarts)
            _hold(len(row.points) == count, f"effort of {row.model.name}", f"{count} points", len(row.points))


@dataclass(frozen=True, kw_only=True)
class MatrixModel:
    """A row or column of a matrix; kind: the architecture, or the training adversary, by which it is coloured."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    kind: str
    clean: Share


@dataclass(frozen=True, kw_only=True)
class Danger:
    """What a leaked source does to a deployed target at one eps.

    transferred: the target's accuracy on the source's examples; white_box: on its own, None where it was no source;
    share_of_damage: (clean - transferred) / (clean - white_box), None where the white box does no damage or is not
    known; endangers: the examples do at least half of the white box's damage, beyond the intervals;
    beats_white_box: they do more, beyond the intervals, so the target's own number cannot be trusted.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    source: str
    target: str
    eps: float
    clean: float
    transferred: float
    white_box: float | None
    share_of_damage: float | None
    endangers: bool
    beats_white_box: bool


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """Targets' accuracies on sources' examples: accuracy[source][target][eps]; where both are one, the white box.

    sources: positions among the models; sentences: one an eps, for a deployer; examples: the folder they lie in.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/transfer/1"
    dataset: Dataset
    seed: int
    norm: str
    eps: tuple[float, ...]
    attack: dict[str, Any]
    models: tuple[MatrixModel, ...]
    sources: tuple[int, ...]
    accuracy: tuple[tuple[tuple[Share, ...], ...], ...]
    dangers: tuple[Danger, ...]
    sentences: tuple[str, ...]
    examples: str | None
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        shapes = {(len(row), len(cell)) for row in self.accuracy for cell in row}
        wanted = (len(self.sources), {(len(self.models), len(self.eps))})
        _hold((len(self.accuracy), shapes) == wanted, "transfer", f"a matrix of {wanted}", shapes)


@dataclass(frozen=True, kw_only=True)
class TestAdversary:
    """A column: an attack by name, with its threat, eps and parameters."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT
    __test__: ClassVar[bool] = False

    name: str
    threat: str
    eps: float
    parameters: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AdversaryMatrix:
    """Models, by the adversary of their training, under test adversaries: accuracy[model][adversary]."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/adversaries/1"
    dataset: Dataset
    seed: int
    models: tuple[MatrixModel, ...]
    adversaries: tuple[TestAdversary, ...]
    accuracy: tuple[tuple[Share, ...], ...]
    environment: dict[str, Any]

    def __post_init__(self) -> None:
        wanted = [len(self.adversaries)] * len(self.models)
        _hold([len(row) for row in self.accuracy] == wanted, "adversaries", "one entry a pair", len(self.accuracy))


@dataclass(frozen=True, kw_only=True)
class AtRadius:
    """Robust accuracy under one threat."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    threat: str
    eps: float
    robust: Share


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """Distances to the nearest adversarial examples found, and the share of them above eps.

    as_published: the benchmark's own procedure, in which a sample without an adversarial example counts as broken;
    distance: an entry a sample, None where nothing was found, 0 where the model errs on the clean image; settings:
    the attack's, as tuned; tuned_to: the median distance with them on the tuning samples, None for infinity.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    as_published: bool
    eps: float
    robust: Share
    not_found: int
    index: tuple[int, ...]
    distance: tuple[float | None, ...]
    settings: dict[str, Any]
    trials: int
    tuning_samples: int
    tuned_to: float | None


@dataclass(frozen=True, kw_only=True)
class TuningTrial:
    """One trial of a search for an attack's settings, as a finished cell; median: None for infinity."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    settings: dict[str, float]
    median: float | None


@dataclass(frozen=True, kw_only=True)
class LeastNormPart:
    """Distances of some samples, as a finished cell; None where nothing was found."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    distance: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class PrunedModel:
    """One entry of the pruning benchmark; sparsity: the share of weights removed, beside the weights kept."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    sparsity: float
    kept: int
    clean: Share
    radii: tuple[AtRadius, ...]
    second_opinion: SecondOpinion | None


@dataclass(frozen=True, kw_only=True)
class PruningBenchmark:
    """Pruned models under AutoAttack at two radii, with a second opinion by least norm."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/pruning-benchmark/1"
    dataset: Dataset
    seed: int
    attack: dict[str, Any]
    rows: tuple[PrunedModel, ...]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of an ensemble: attacked alone, it keeps `robust`; on its examples the ensemble keeps `ensemble`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    clean: Share
    robust: Share
    ensemble: Share


@dataclass(frozen=True, kw_only=True)
class EnsembleTable:
    """An ensemble attacked as one model, beside the attacks on its members.

    as_one: the number to quote; member_wise: what stands under the examples of all members; parameters: of all
    members, trainable and not, while model counts the kernels alone; flattery: member_wise - as_one.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/ensemble/1"
    dataset: Dataset
    seed: int
    threat: str
    eps: float
    attack: dict[str, Any]
    model: EvaluatedModel
    parameters: int
    clean: Share
    as_one: Share
    member_wise: Share
    flattery: float
    members: tuple[Member, ...]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class NoiseMode:
    """One way to measure a stochastic model; passes: forward passes an attack step averages over."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    noise: bool
    passes: int
    clean: Spread
    robust: Spread


@dataclass(frozen=True, kw_only=True)
class StochasticRow:
    """One stochastic model in every mode."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    model: EvaluatedModel
    modes: tuple[NoiseMode, ...]


@dataclass(frozen=True, kw_only=True)
class StochasticTable:
    """Stochastic models with and without their noise, over trials of the seeds `seeds`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/stochastic/1"
    dataset: Dataset
    seeds: tuple[int, ...]
    threat: str
    eps: float
    attack: dict[str, Any]
    rows: tuple[StochasticRow, ...]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Accuracy under one corruption at severities 1 to 5; extra: not one of the 15 that the mean is taken over."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    extra: bool
    checksum: str
    accuracy: tuple[Share, ...]


@dataclass(frozen=True, kw_only=True)
class CorruptedModel:
    """One model under all corruptions; mean: over severities and the corruptions that are not extra."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    corruptions: tuple[Corruption, ...]
    by_severity: tuple[float, ...]
    mean: float


@dataclass(frozen=True, kw_only=True)
class CorruptionTable:
    """Models on a folder of corrupted images; n: images a corruption and severity; counted: corruptions in the mean."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/corruptions/1"
    folder: str
    n: int
    counted: int
    rows: tuple[CorruptedModel, ...]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """One class; robust: the share of its samples that no attack of the evaluation broke."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    label: int
    name: str
    clean: Share
    robust: Share


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """An evaluation by class; the worst classes by name."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/classes/1"
    run: str
    attack: str
    threat: str
    n: int
    classes: tuple[ClassAccuracy, ...]
    worst_clean: str
    worst_robust: str
    environment: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Queried:
    """One sample under a black-box attack; distance: l2 to the point found, None where none was."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    index: int
    success: bool
    queries: int
    distance: float | None


@dataclass(frozen=True, kw_only=True)
class QueriedPart:
    """Some samples of one model under a black-box attack, as a finished cell."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    samples: tuple[Queried, ...]


@dataclass(frozen=True, kw_only=True)
class QueriedModel:
    """One model; asked: samples looked at until enough were right; queries: of the successes, None without one."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    asked: int
    success: Share
    median_queries: float | None
    mean_queries: float | None
    samples: tuple[Queried, ...]


@dataclass(frozen=True, kw_only=True)
class BlackBoxTable:
    """Success rates of an attack that sees outputs alone, on samples that are right when clean."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/blackbox/1"
    dataset: Dataset
    seed: int
    threat: str
    attack: dict[str, Any]
    rows: tuple[QueriedModel, ...]
    environment: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What randomised smoothing says of one sample.

    prediction: None where it abstains; radius: l2, in pixel units of [0, 1], 0 where it abstains; lower: the lower
    confidence bound on the probability of the prediction under noise.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    index: int
    label: int
    prediction: int | None
    radius: float
    lower: float


@dataclass(frozen=True, kw_only=True)
class CertifiedAt:
    """Certified accuracy at one radius; guaranteed: what holds for the true certified accuracy of these samples
    with the table's `confidence`, wrong certificates allowed for."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    radius: float
    accuracy: Share
    guaranteed: float


@dataclass(frozen=True, kw_only=True)
class SmoothedModel:
    """One smoothed model; confidence of each certificate: 1 - alpha of its table."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    abstained: int
    samples: tuple[Certificate, ...]
    curve: tuple[CertifiedAt, ...]


@dataclass(frozen=True, kw_only=True)
class SmoothingTable:
    """Randomised-smoothing certificates; n0, n: noisy copies to choose and to count the class."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/smoothing/1"
    dataset: Dataset
    seed: int
    sigma: float
    n0: int
    n: int
    alpha: float
    confidence: float
    rows: tuple[SmoothedModel, ...]
    environment: dict[str, Any]


def _hold(holds: bool, subject: str, expected: str, got: object) -> None:
    if not holds:
        raise RunError(subject, expected=expected, got=got, remedy="measure again: the parts contradict each other")
