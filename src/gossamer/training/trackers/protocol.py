"""What does a tracker of experiments do? It is told how a run begins, its numbers epoch by epoch, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

Parameter: TypeAlias = float | int | str | bool | None
State: TypeAlias = Literal["done", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A run as a tracker meets it.

    id: the same whenever the run goes on, and no other run's; parameters: its recipe, as data.name; folder: the run
    folder; step: the last whose numbers an earlier process knows to have been taken down, 0 for none.
    """

    name: str
    id: str
    parameters: Mapping[str, Parameter]
    folder: Path
    step: int


class Tracker(Protocol):
    """Takes down a run somewhere else. What a method raises ends the tracking, never the run."""

    def begin(self, run: Tracked) -> int:
        """Begin with a run, or go on with it; returns the last step whose numbers it holds, 0 for none."""
        ...

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take down an epoch's numbers, all finite, at a global step; steps rise."""
        ...

    def end(self, state: State, results: Mapping[str, float]) -> None:
        """Take down how the run ended and what was measured, and close."""
        ...
