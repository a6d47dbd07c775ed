"""Protocols over runs of a sweep: planned once, measured once, kept with a run, and gone on with after a kill."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import ConfigError, RunError
from gossamer.recipe.open import open_run
from gossamer.recipe.protocols import read_question
from gossamer.runs import RunFolder, atomic, records
from gossamer.runs.protocols import TransferMatrix
from gossamer.sweep import tasks as room
from gossamer.sweep.drive import tasks_of
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.plan import Plan, plan
from gossamer.sweep.spec import Case, expand, load_sweep
from gossamer.sweep.store import RECORD, Store
from gossamer.sweep.tasks import is_done, perform, phase_task, protocol_task, run_task
from gossamer.sweep.work import read_task, write_task

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "train_n": 64},
    "model": {"name": "digits-cnn", "width": 0.25},
    "threat": "linf:0.15",
    "method": {"name": "random", "density": 0.5},
    "training": {"epochs": 1, "batch_size": 64},
    "machine": {"threads": 1},
}
TRANSFER = {"name": "transfer", "attack": "fgsm", "eps": [0.05, 0.1], "n": 20}


def cases() -> list[Case]:
    return expand(load_sweep({"base": BASE, "axes": {"density": {"field": "method.density", "values": [0.5, 0.1]}}}))


def asked(question: dict[str, Any], *chosen: Case) -> Measurement:
    return Measurement(question=read_question(question), cases=chosen)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    graph = plan(cases())
    for node in graph.phases.values():
        perform(phase_task(node, str(root)))
    for run in graph.runs:
        perform(run_task(run, str(root)))
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "store")
    return tmp_path / "store"


def planned(*measurements: Measurement) -> Plan:
    return plan(cases(), measurements=measurements)


def test_a_question_to_the_same_runs_is_planned_once() -> None:
    one, other = cases()
    weights = asked({"name": "weights"}, one, other)
    again, reversed_, less = (
        asked({"name": "weights"}, *chosen) for chosen in ((one, other, one), (other, one), (one,))
    )
    more = asked({"name": "weights", "gammas": [0.1]}, one, other)
    assert (weights.name == again.name, weights.runs) == (True, again.runs)
    graph = planned(weights, again, reversed_, less, more)
    assert len(graph.protocols) == len({each.name for each in graph.protocols}) == 4
    assert graph.protocols[0].name == weights.name
    assert list(graph.protocols[0].runs) == [run.name for run in graph.runs]
    assert graph.protocols[0].runs[graph.runs[0].name] == graph.runs[0].made_of
    alone = planned()
    assert (alone.phases, alone.runs, alone.protocols) == (graph.phases, graph.runs, ())


def test_the_runs_that_a_measurement_needs_are_planned_and_come_before_it() -> None:
    one, other = cases()
    graph = plan([one], measurements=[asked({"name": "weights"}, other)])
    assert len(graph.runs) == 2
    assert len(graph.phases) == 2
    (task, needs) = tasks_of(graph, "store")[-1]
    assert (task.kind, needs) == ("protocol", [f"run-{graph.runs[1].name}"])


def test_a_measurement_is_made_once_and_lies_with_its_first_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = cases()
    transfer = asked({**TRANSFER, "sources": [asked({"name": "weights"}, one).runs[0]]}, one, other)
    graph = planned(transfer)
    task = protocol_task(graph.protocols[0], str(store))
    assert read_task(write_task(task, store)) == task
    assert not is_done(task)
    assert perform(task) == "done"
    assert is_done(task)
    record = transfer.record(store)
    assert record.parent == store / "runs" / transfer.runs[0] / "results"
    matrix = records.read(TransferMatrix, record)
    assert [each.model.name for each in matrix.models] == list(transfer.runs)
    assert (matrix.sources, matrix.eps, matrix.dataset.n) == ((0,), (0.05, 0.1), 20)
    assert all(len(cell.right or "") == 20 for row in matrix.accuracy for cells in row for cell in cells)
    monkeypatch.setattr(room, "ask", None)
    assert perform(task) == "was done"


def test_phases_runs_and_measurements_say_when_they_were_done(store: Path) -> None:
    graph, held = planned(asked({"name": "weights"}, *cases())), Store(str(store))
    perform(protocol_task(graph.protocols[0], str(store)))
    found = {key: held.find(key) for key in graph.phases}
    standings = [held.standing(each.name) for each in (*graph.runs, *graph.protocols)]
    times = [record.stored for record in found.values() if record] + [each["ended"] for each in standings if each]
    assert len(times) == 2 + 2 + 1
    parsed = [datetime.fromisoformat(time) for time in times]
    # In the order in which they were done.
    assert parsed == sorted(parsed)
    assert datetime.now(UTC) - timedelta(hours=1) < parsed[0] <= parsed[-1] <= datetime.now(UTC)
    (key, *_) = graph.phases
    path = store / "phases" / key / RECORD
    said = atomic.read_json(path)
    del said["stored"]
    atomic.write_json(path, said)
    older = held.find(key)
    assert older is not None
    assert older.stored == ""


def test_after_a_kill_it_goes_on_with_what_is_not_measured(store: Path) -> None:
    one, other = cases()
    graph = planned(asked(TRANSFER, one, other))
    task = protocol_task(graph.protocols[0], str(store))
    perform(task)
    first = store / "runs" / graph.runs[0].name
    made = next(first.glob("results/protocol-transfer-*.json"))
    before = made.read_bytes()
    cells = {path: path.stat().st_mtime_ns for path in (first / "partial/protocols").rglob("*") if path.is_file()}
    assert cells
    made.unlink()
    (store / "standing" / f"{task.key}.json").unlink()
    assert not is_done(task)
    assert perform(task) == "done"
    assert made.read_bytes() == before
    after = {path: path.stat().st_mtime_ns for path in (first / "partial/protocols").rglob("*") if path.is_file()}
    assert after == cells


def test_of_runs_of_other_phases_it_is_measured_anew(store: Path) -> None:
    one, _ = cases()
    graph = planned(asked({"name": "weights"}, one))
    task = protocol_task(graph.protocols[0], str(store))
    perform(task)
    standing = store / "standing" / f"{task.key}.json"
    atomic.write_json(standing, {"made_of": {graph.runs[0].name: ["of-other-data"]}, "done": True})
    assert not is_done(task)
    (store / "standing" / f"{graph.runs[0].name}.json").unlink()
    with pytest.raises(RunError, match="the runs before it"):
        perform(task)


def test_a_store_elsewhere_gives_the_runs_and_takes_the_record(trained: Path, tmp_path: Path) -> None:
    root = f"memory://{tmp_path.name}/bucket"
    one, _ = cases()
    graph = plan([one], measurements=[asked({"name": "weights"}, one)])
    for node in graph.phases.values():
        perform(phase_task(node, root))
    perform(run_task(graph.runs[0], root))
    task = protocol_task(graph.protocols[0], root)
    assert perform(task) == "done"
    assert is_done(task)
    name = f"runs/{graph.runs[0].name}/results/protocol-{task.key}.json"
    there = room.Store(root).files.read(name)
    assert there is not None
    twin = open_run(RunFolder(trained / "runs" / graph.runs[0].name).path)
    assert str(sum(parameter.numel() for parameter in twin.model().parameters())) in there.decode()


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"name": "waits"}, "gossamer list protocols"),
        ({"name": "weights", "gamma": [0.1]}, "gammas"),
        ({"name": "weights", "gammas": "some"}, "option gammas"),
        ({"name": "transfer", "n": 0}, "greater than 0"),
    ],
)
def test_questions_that_cannot_be_are_refused(question: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_question(question)
    assert told in str(refused.value)
