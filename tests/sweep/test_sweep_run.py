"""A grid from Python: trained by whatever engine is brought, once, and read as one table."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from small_sweeps import CORNER

import gossamer
from gossamer.sweep.engine import Ended
from gossamer.sweep.run import root_of
from gossamer.sweep.tasks import Task, perform


@dataclass(frozen=True)
class Done:
    """A task that was done before anyone asked."""

    def ended(self) -> Ended:
        return Ended(ok=True, message="done")

    def stop(self) -> None:
        """There is nothing left to stop."""


@dataclass
class Here:
    """Does every task in this process as it comes."""

    slots: int = 1
    taken: list[str] = field(default_factory=list[str])

    def submit(self, task: Task) -> Done:
        perform(task)
        self.taken.append(task.id)
        return Done()

    def stop(self) -> None:
        """There is never anything to stop."""


def test_a_grid_is_trained_by_an_engine_of_ones_own_and_once(tmp_path: Path) -> None:
    first, again, told = Here(), Here(), list[str]()
    assert gossamer.run_sweep(CORNER, tmp_path, engine=first, tell=told.append).complete
    assert len(first.taken) == 3 + 2
    assert all(gossamer.results(CORNER, tmp_path).column("done"))
    assert gossamer.run_sweep(CORNER, tmp_path, engine=again, tell=told.append).complete
    assert again.taken == []
    assert "5 of 5 tasks were done before" in told


def test_a_store_is_a_folder_wherever_a_worker_stands_or_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert root_of(None, "grid") == str(tmp_path / "sweeps/grid")
    assert root_of("here", "grid") == str(tmp_path / "here")
    assert root_of("s3://bucket/grid", "grid") == "s3://bucket/grid"
