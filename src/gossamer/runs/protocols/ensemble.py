"""Is an ensemble robust, or flattered by attacks on its members? The record of both."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share
from gossamer.runs.results import Dataset, EvaluatedModel


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
