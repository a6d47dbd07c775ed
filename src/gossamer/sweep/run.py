"""How is a grid trained from Python? As `gossamer sweep` does it, by an engine that the caller may bring."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gossamer.sweep.drive import ATTEMPTS, Outcome, Told, drive
from gossamer.sweep.engine import Engine
from gossamer.sweep.local import LocalEngine, cores
from gossamer.sweep.plan import plan
from gossamer.sweep.spec import Sweep, expand, load_sweep


def run_sweep(
    sweep: Sweep | Path | str | Mapping[str, Any],
    store: Path | str | None = None,
    *,
    engine: Engine | None = None,
    data_dir: Path | str | None = None,
    attempts: int = ATTEMPTS,
    tell: Told = print,
) -> Outcome:
    """Train every distinct phase of a grid once, put its runs together and evaluate them; called again, it goes on.

    sweep: a file, or what would stand in it. store: where phases and runs lie, by default sweeps/NAME. engine: who
    does the tasks, such as `LocalEngine`, `RayEngine` or `SlurmEngine` of `gossamer.sweep`; by default a process a core
    of this machine. Raises ConfigError for what cannot be, DataError and RunError for data and stores that cannot be
    read; tasks that fail are told in the outcome.
    """
    asked = sweep if isinstance(sweep, Sweep) else load_sweep(sweep)
    root = root_of(store, asked.name)
    folder = None if data_dir is None else Path(data_dir).absolute()
    graph = plan(expand(asked), folder)
    hands = engine or LocalEngine(slots=cores(), folder=Path(root) / "tasks")
    return drive(graph, root, hands, data_dir=folder, attempts=attempts, tell=tell)


def root_of(store: Path | str | None, name: str) -> str:
    """Return where the store of a sweep of this name is, whatever folder a worker stands in."""
    if store is not None and "://" in str(store):
        return str(store)
    return str(Path(store or Path("sweeps") / name).absolute())
