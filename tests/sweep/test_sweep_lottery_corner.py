"""A corner of the lottery-ticket grid, trained: 2 widths, 1 attack strength, 2 densities, 2 strategies, 1 replicate."""

from pathlib import Path
from typing import Any

import pytest

import gossamer
from gossamer.models.digits import digits_cnn
from gossamer.runs import atomic
from gossamer.sweep.drive import drive
from gossamer.sweep.local import LocalEngine
from gossamer.sweep.plan import Plan, plan
from gossamer.sweep.results import Results
from gossamer.sweep.spec import expand, load_sweep
from gossamer.sweep.store import PhaseRecord, Store

pytestmark = pytest.mark.long
WIDTHS, DENSITIES, STRATEGIES = [0.5, 1.0], [0.2, 0.1], ["magnitude", "random"]
SWEEP: dict[str, Any] = {
    "name": "corner",
    "base": "rewinding/digits-90",
    "set": {
        "data.train_n": 300,
        "method.rewind_epoch": 1,
        "training.epochs": 2,
        "evaluation": [{"attack": "fgsm", "n": 60}],
        "machine.threads": 1,
    },
    "axes": {
        "width": {"field": "model.width", "values": WIDTHS},
        "strength": {"field": "attack.steps", "values": [2]},
        "density": {"field": "method.density", "values": DENSITIES},
        "strategy": {"field": "method.choose", "values": STRATEGIES},
        "replicate": {"seeds": 1},
    },
}


@pytest.fixture(scope="module")
def graph() -> Plan:
    return plan(expand(load_sweep(SWEEP)))


@pytest.fixture(scope="module")
def root(graph: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corner")
    outcome = drive(graph, str(root), LocalEngine(slots=2, folder=root / "tasks"))
    assert outcome.complete, outcome.failed
    return root


@pytest.fixture(scope="module")
def table(root: Path) -> Results:
    return gossamer.results(SWEEP, root)


def trained(root: Path) -> list[PhaseRecord]:
    store = Store(str(root))
    found = [store.find(key) for key in store.keys()]  # noqa: SIM118
    return [record for record in found if record is not None]


def test_eight_runs_are_two_dense_trainings_and_eight_sparse_ones(graph: Plan, root: Path):
    assert len(graph.runs) == 8
    assert sorted(record.phase for record in trained(root)) == ["round-1"] * 8 + ["train"] * 2
    assert (graph.epochs, graph.epochs_alone) == (20, 32)
    assert sum(record.epochs for record in trained(root)) == 20
    # A folder an attempt: each was stored once.
    assert all(len(list(each.glob("*/"))) == 1 for each in (root / "phases").iterdir())


def test_every_case_has_its_row_with_the_density_that_it_asked_for(table: Results):
    assert table.axes == ["width", "strength", "density", "strategy", "replicate"]
    asked = [(width, 2, density, strategy, 0) for width in WIDTHS for density in DENSITIES for strategy in STRATEGIES]
    assert [tuple(row[axis] for axis in table.axes) for row in table] == asked
    for row in table:
        dense = weights(float(row["width"] or 0))
        assert row["done"] is True
        assert row["measured density"] == pytest.approx(row["density"], abs=0.001)
        assert row["nonzero"] == pytest.approx(float(row["density"] or 0) * dense, abs=3)
        assert 0.0 <= row["fgsm linf:0.15"] <= row["clean"] <= 1.0  # pyright: ignore[reportOperatorIssue]
        assert (row["n"], row["fgsm linf:0.15, n"]) == (60, 60)


def test_strategies_keep_other_weights_of_the_same_dense_training(graph: Plan, root: Path):
    masks: dict[tuple[Any, ...], set[bytes]] = {}
    dense: dict[Any, set[str]] = {}
    for run in graph.runs:
        (labels,) = run.labels
        states = root / "runs" / run.name / "states"
        final = atomic.read_safetensors(states / "final.safetensors")
        kept = b"".join(final[name].ne(0).numpy().tobytes() for name in sorted(final) if final[name].ndim > 1)
        masks.setdefault((labels["width"], labels["density"]), set()).add(kept)
        dense.setdefault(labels["width"], set()).add(atomic.sha256(states / "train.end.safetensors"))
    assert [len(each) for each in dense.values()] == [1, 1]
    assert [len(each) for each in masks.values()] == [2, 2, 2, 2]


def weights(width: float) -> int:
    """Return how many weights the dense network has."""
    network = digits_cnn(width=width)
    return sum(value.numel() for name, value in network.named_parameters() if value.ndim > 1)
