"""Trackers hear of every run of a sweep and a search once: all of its epochs and results, whoever puts it together."""

import copy
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import done_all, planned, rewound, small

from gossamer.errors import ConfigError
from gossamer.recipe import train as training
from gossamer.recipe.train import train
from gossamer.runs import RunFolder, metrics
from gossamer.sweep.drive import drive
from gossamer.sweep.engine import Ended, attempt
from gossamer.sweep.local import LocalEngine
from gossamer.sweep.plan import Plan
from gossamer.sweep.search import drive as searching
from gossamer.sweep.search.drive import run_search
from gossamer.sweep.search.spec import load_search
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import Task, perform, phase_task, run_task
from gossamer.training.interruption import Interrupted
from trackers_in_memory import MLflowServer, WandbServer

QUICK: dict[str, Any] = {
    "data": {"name": "digits", "train_n": 60},
    "training": {"epochs": 2, "batch_size": 20},
    "evaluation": [{"attack": "fgsm", "n": 20}],
}
DENSITIES = {"density": {"field": "method.density", "values": [0.2, 0.1]}}
STEPS = [3, 6, 9, 12]
RESULT = "fgsm-linf-0.15-n20/robust_accuracy"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(training, "_draw_panel", lambda *_: None)
    return monkeypatch


def tracked(*names: str, axes: Any = DENSITIES) -> Plan:
    machine = {"threads": 1, "checkpoint_seconds": 0, "trackers": names}
    return planned({"base": rewound(**QUICK, machine=machine), "axes": axes})


def alone(**axes: Any) -> Plan:
    return tracked("mlflow", "wandb", axes={"density": {"field": "method.density", "values": [0.2]}, **axes})


class Killing:
    """Lets the evaluation of a run be killed, once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._real, self._left = training.evaluate_spec, 1
        patch.setattr(training, "evaluate_spec", self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self._left:
            self._left -= 1
            raise Interrupted(15)
        return self._real(*given, **named)


def test_each_run_is_tracked_once_with_the_phase_that_it_shares(variables: pytest.MonkeyPatch, tmp_path: Path):
    mlflow, wandb = MLflowServer().install(variables), WandbServer().install(variables)
    graph = tracked("mlflow", "wandb")
    for node in graph.phases.values():
        perform(phase_task(node, str(tmp_path)))
    assert (mlflow.runs, wandb.attempts) == ([], [])
    done_all(graph, tmp_path)
    done_all(graph, tmp_path)
    assert [run.run_name for run in mlflow.runs] == [run.name for run in graph.runs]
    one, other = mlflow.runs
    for run in mlflow.runs:
        logged = metrics.read(RunFolder(tmp_path / "runs" / run.run_name))
        assert run.steps("epoch") == [line["step"] for line in logged] == STEPS
        assert run.values("loss") == [line["loss"] for line in logged]
        assert (len(run.steps(RESULT)), run.status) == (1, "FINISHED")
    assert one.values("loss")[:2] == other.values("loss")[:2]
    assert one.values("loss")[2:] != other.values("loss")[2:]
    assert [row["step"] for run in wandb.attempts for row in run.rows] == STEPS + STEPS
    assert len(wandb.runs) == len(wandb.attempts) == 2


@pytest.mark.parametrize("online", [True, False])
def test_a_run_whose_worker_is_stopped_goes_on_as_the_same_tracked_run(
    online: bool, variables: pytest.MonkeyPatch, tmp_path: Path
):
    mlflow, wandb = MLflowServer().install(variables), WandbServer(online=online).install(variables)
    Killing(variables)
    with pytest.raises(Interrupted):
        done_all(alone(), tmp_path)
    assert [run.status for run in mlflow.runs] == ["KILLED"]
    done_all(alone(), tmp_path)
    assert_told_once(mlflow, wandb)


def assert_told_once(mlflow: MLflowServer, wandb: WandbServer) -> None:
    (run,) = mlflow.runs
    assert (run.steps("epoch"), len(run.steps(RESULT)), run.status) == (STEPS, 1, "FINISHED")
    assert len(wandb.runs) == 1
    # Online all attempts are one run; offline each holds the rows that it was told.
    attempts = {id(each): each for each in wandb.attempts}.values()
    assert [row["step"] for each in attempts for row in each.rows] == STEPS


def test_where_the_store_is_a_url_a_worker_takes_the_tracked_run_over(variables: pytest.MonkeyPatch, tmp_path: Path):
    mlflow, wandb = MLflowServer().install(variables), WandbServer().install(variables)
    root = f"memory://{tmp_path.name}/store"
    graph = alone()
    for node in graph.phases.values():
        perform(phase_task(node, root))
    task = run_task(graph.runs[0], root)
    Killing(variables)
    with pytest.raises(Interrupted):
        perform(task)
    assert perform(task) == "done"
    assert_told_once(mlflow, wandb)
    note = json.loads(Store(root).files.read(f"runs/{task.key}/trackers/mlflow.json") or b"")
    assert (note["id"], note["done"]) == (mlflow.runs[0].tags["gossamer.id"], True)
    # A run of that name that is made of other phases is another one.
    Store(root).files.write(f"standing/{task.key}.json", b'{"made_of": [], "done": true}')
    assert perform(task) == "done"
    assert len(mlflow.runs) == len(wandb.runs) == 2


def test_a_tracker_that_fails_ends_no_task_is_told_of_and_gets_the_rest_later(
    variables: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    mlflow, wandb = MLflowServer().install(variables), WandbServer().install(variables)
    mlflow.gone = True
    graph, lines = alone(), list[str]()
    outcome = drive(graph, str(tmp_path), Here(), tell=lines.append)
    assert outcome.complete
    (told,) = [line for line in lines if line.startswith("run-")]
    assert told.split("; ")[1].startswith("mlflow did not take all of it down")
    assert "no route to" in capsys.readouterr().out
    mlflow.gone = False
    folder = tmp_path / "runs" / graph.runs[0].name
    train(folder / "recipe.yaml", out=folder)
    assert_told_once(mlflow, wandb)
    before = copy.deepcopy(mlflow.runs)
    assert drive(graph, str(tmp_path), Here(), tell=lines.append).complete
    assert mlflow.runs == before


class Here:
    """An engine that does tasks in this process."""

    slots = 1

    def submit(self, task: Task) -> "_Over":
        return _Over(attempt(task))

    def stop(self) -> None:
        """Nothing runs."""


class _Over:
    def __init__(self, ended: Ended) -> None:
        self._ended = ended

    def ended(self) -> Ended:
        return self._ended

    def stop(self) -> None:
        """It is over."""


def test_a_tracker_that_could_hear_of_nothing_is_refused_before_the_first_phase(
    variables: pytest.MonkeyPatch, tmp_path: Path
):
    MLflowServer().install(variables)
    WandbServer(key=False).install(variables)
    with pytest.raises(ConfigError, match="No API key configured"):
        drive(alone(), str(tmp_path), Here())
    with pytest.raises(ConfigError, match="No API key configured"):
        run_search(searched("wandb"), tmp_path, Here())
    assert not list(tmp_path.iterdir())


def searched(*trackers: str) -> Any:
    pytest.importorskip("optuna")
    base = small(
        data={"name": "digits", "train_n": 60, "split": {"held_out": 0.2}},
        training={"epochs": 1, "batch_size": 24},
        machine={"threads": 1, "trackers": trackers},
    )
    return load_search(
        {
            "name": "tracked",
            "base": base,
            "space": {"method.density": [0.2, 0.1]},
            "objectives": [{"maximize": "robust"}],
            "evaluation": {"attack": "fgsm", "n": 10},
            "trials": 2,
            "sampler": "random",
        }
    )


def test_trials_are_tracked_with_what_the_held_out_split_gave(variables: pytest.MonkeyPatch, tmp_path: Path):
    variables.setattr(searching, "PAUSE", 0.0)
    server = MLflowServer().install(variables)
    lines = list[str]()
    ended = run_search(searched("mlflow"), tmp_path, Here(), tell=lines.append)
    done = {str(trial.run): trial.values for trial in ended.trials}
    assert {run.run_name for run in server.runs} == set(done)
    for run in server.runs:
        assert run.values("fgsm-linf-0.15-held_out-n10/robust_accuracy") == list(done[run.run_name])
        assert run.params["method.density"] in ("0.2", "0.1")
    assert not [line for line in lines if "did not take" in line]


def events(run: Path) -> dict[str, list[int]]:
    """Return the steps of each scalar that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    seen = EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    return {name: [event.step for event in seen.Scalars(name)] for name in seen.Tags()["scalars"]}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_workers_at_once_write_a_log_each_and_a_stopped_one_writes_no_step_twice(tmp_path: Path):
    pytest.importorskip("tensorboard")
    graph = tracked("tensorboard")
    engine = Stopping(slots=2, folder=tmp_path / "tasks")
    with suppress(Interrupted):
        drive(graph, str(tmp_path), engine)
    outcome = drive(graph, str(tmp_path), LocalEngine(slots=2, folder=tmp_path / "tasks"))
    assert outcome.complete, outcome.failed
    assert engine.stopped
    for run in graph.runs:
        seen = events(tmp_path / "runs" / run.name)
        assert seen["loss"] == seen["epoch"] == STEPS
        assert seen[f"results/{RESULT}"] == STEPS[-1:]


class Stopping(LocalEngine):
    """Asks every worker to end once one has begun to put a run together."""

    stopped = False

    def submit(self, task: Task) -> Any:
        handle = super().submit(task)
        if task.kind == "run":
            self.stopped = True
            raise Interrupted(15)
        return handle
