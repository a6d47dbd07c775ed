"""Recipes and grids that are trained in seconds, and what is left of a store at the end, for all tests of sweeps."""

import sys
from pathlib import Path
from typing import Any

import yaml

from gossamer.deploy.about import weights_sha256
from gossamer.runs import atomic
from gossamer.sweep.plan import Plan, plan
from gossamer.sweep.results import read_results
from gossamer.sweep.spec import expand, load_sweep
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import perform, phase_task, run_task


def small(**changes: Any) -> dict[str, Any]:
    """Return a recipe of one phase on digits, with other sections where they are given."""
    return {
        "name": "small",
        "data": {"name": "digits", "train_n": 200},
        "model": {"name": "digits-cnn"},
        "threat": "linf:0.15",
        "method": {"name": "random", "density": 0.5},
        "machine": {"threads": 1, "checkpoint_seconds": 0},
        **changes,
    }


def rewound(**changes: Any) -> dict[str, Any]:
    """Return a recipe whose dense phase of 3 epochs is shared by whatever goes on from its first."""
    return small(
        **{
            "objective": {"name": "adversarial"},
            "attack": {"steps": 1},
            "method": {"name": "rewinding", "density": 0.5, "rewind_epoch": 1},
            "training": {"epochs": 3, "batch_size": 64},
            "evaluation": [{"attack": "fgsm", "n": 50}],
            **changes,
        }
    )


# One dense training, and two sparse ones that go on from it.
CORNER: dict[str, Any] = {
    "name": "corner",
    "base": rewound(
        data={"name": "digits", "train_n": 300}, attack={"steps": 2}, training={"epochs": 3, "batch_size": 32}
    ),
    "axes": {"strategy": {"field": "method.choose", "values": ["magnitude", "random"]}},
}


def planned(sweep: dict[str, Any] = CORNER) -> Plan:
    return plan(expand(load_sweep(sweep)))


def done_all(graph: Plan, root: Path) -> None:
    """Do every task of a plan in this process."""
    for node in graph.phases.values():
        perform(phase_task(node, str(root)))
    for run in graph.runs:
        perform(run_task(run, str(root)))


def command(folder: Path, sweep: dict[str, Any] = CORNER) -> list[str]:
    """Return the words that drive a sweep over the store of a folder, two tasks at a time."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    main = [sys.executable, "-m", "gossamer", "sweep", str(path), "--store", str(folder / "store")]
    return [*main, "--slots", "2"]


def digests(root: Path) -> dict[str, dict[str, str]]:
    """Return the digests of the tensors in all states of all finished phases."""
    store = Store(str(root))
    found = {key: store.find(key) for key in store.keys()}  # noqa: SIM118
    return {
        key: {name: weights_sha256(atomic.read_safetensors(root / each.name)) for name, each in record.states.items()}
        for key, record in found.items()
        if record
    }


def end(root: Path) -> tuple[dict[str, dict[str, str]], list[dict[str, Any]]]:
    """Return what the corner ended in: the digests of all states, and the table of its results."""
    return digests(root), [dict(row) for row in read_results(CORNER, root)]


def stored(root: Path) -> dict[str, int]:
    """Return how often somebody began to store each phase."""
    return {each.name: len(list(each.glob("*/"))) for each in (root / "phases").iterdir()}
