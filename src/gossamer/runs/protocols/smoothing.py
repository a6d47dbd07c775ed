"""What does randomised smoothing certify? The record of certificates and their curve."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share
from gossamer.runs.results import Dataset


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
