"""How robust is a stochastic model with its noise and without? The record over trials."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Spread
from gossamer.runs.results import Dataset, EvaluatedModel


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
