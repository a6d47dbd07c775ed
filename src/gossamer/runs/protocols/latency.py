"""How long does a forward pass of each of several networks take, on one machine? The record."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records


@dataclass(frozen=True, kw_only=True)
class PassTime:
    """Seconds of a pass, over all calls of all rounds. loaded: images were read inside the timed section."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    batch: int
    loaded: bool
    mean: float
    median: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class TimedModel:
    """One network, exported; bytes: of its artifact."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    name: str
    density: float
    bytes: int
    passes: tuple[PassTime, ...]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Networks that took turns on one device, all exported as one kind of artifact."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    schema: str = "gossamer/latency/1"
    kind: str
    device: str
    threads: int
    rows: tuple[TimedModel, ...]
    environment: dict[str, Any]
