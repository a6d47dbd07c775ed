"""How accurate is a model under common corruptions? The record by corruption and severity."""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share


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
