"""Which classes does an attack hit? The record of an evaluation by class."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gossamer.runs import records
from gossamer.runs.protocols.common import Share


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
