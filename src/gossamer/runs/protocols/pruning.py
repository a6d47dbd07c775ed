"""How robust are pruned models, by the pruning benchmark? Its record, and the cells it is made of."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share
from gossamer.runs.results import Dataset, EvaluatedModel


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
