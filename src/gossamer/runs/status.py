"""Where does a run stand? One small record, rewritten as it goes."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from gossamer.runs import records
from gossamer.runs.layout import RunFolder


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run; epoch: 1-based within the phase; step: over all phases; times: ISO 8601 in UTC."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    state: Literal["running", "done", "interrupted", "failed"]
    phase: str
    epoch: int
    step: int
    message: str
    started: str
    updated: str
    seconds_trained: float


def write(run: RunFolder, status: Status) -> None:
    """Write the run's status; raises RunError where the file system refuses."""
    records.write(run.status, status)


def read(run: RunFolder) -> Status | None:
    """Return the run's status, None before the first; raises RunError if the file is damaged."""
    return records.read(Status, run.status) if run.status.exists() else None
