"""A tracked run is the run it would be untracked, taken down once, however often it is stopped."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest
from lifecycle import assert_same_run, metrics, recipe

from gossamer.cli.main import main
from gossamer.errors import ConfigError
from gossamer.recipe.load import load_recipe, run_name, to_yaml
from gossamer.recipe.tracked import parameters
from gossamer.recipe.train import train, train_one
from gossamer.training.progress import Line, Silent
from trackers_in_memory import MLflowServer, WandbServer

EVALUATED: dict[str, Any] = {"evaluation": [{"attack": "fgsm", "n": 30}]}


class StopAfter(Silent):
    """Stops a run as Ctrl-C pressed twice does, once an epoch is logged; remembers what is said."""

    def __init__(self, step: int | None = None) -> None:
        self._step = step
        self.notes: list[str] = []

    def epoch(self, line: Line, epochs: int) -> None:
        if line["step"] == self._step:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untracked") / "run"
    train(recipe(**EVALUATED), out=folder)
    return folder


def test_a_stopped_run_goes_on_in_the_same_tracked_runs_and_ends_in_the_same_bits(
    variables: pytest.MonkeyPatch, untracked: Path, tmp_path: Path
) -> None:
    mlflow, wandb = MLflowServer().install(variables), WandbServer(online=False).install(variables)
    values = recipe(machine={"trackers": "mlflow"}, **EVALUATED)
    # Its last checkpoint is then that of step 2: the epoch that ended with step 3 is trained once more.
    with pytest.raises(KeyboardInterrupt):
        train(values, out=tmp_path / "run", track=["wandb"], progress=StopAfter(3))
    assert [run.status for run in mlflow.runs] == ["KILLED"]
    train(values, out=tmp_path / "run", track=["wandb"])
    assert_same_run(untracked, tmp_path / "run")
    (run,) = mlflow.runs
    logged = metrics(untracked)
    assert run.steps("epoch") == [3, 6]
    assert run.values("loss") == [line["loss"] for line in logged]
    assert run.status == "FINISHED"
    assert run.params["training.epochs"] == "2"
    assert run.params["evaluation.0.attack"] == "fgsm"
    first, second = wandb.attempts
    assert first.asked["id"] == second.asked["id"]
    assert [row["step"] for row in [*first.rows, *second.rows]] == [3, 6]
    assert {"density", "nonzero", "fgsm-linf-0.15-n30/robust_accuracy"} <= set(second.summary)
    assert run.values("fgsm-linf-0.15-n30/robust_accuracy") == [second.summary["fgsm-linf-0.15-n30/robust_accuracy"]]


def test_a_server_that_goes_away_changes_nothing_and_is_sent_the_rest_later(
    variables: pytest.MonkeyPatch, untracked: Path, tmp_path: Path
) -> None:
    server, shown = MLflowServer().install(variables), StopAfter()
    server.gone = True
    train(recipe(**EVALUATED), out=tmp_path / "run", track=["mlflow"], progress=shown)
    assert_same_run(untracked, tmp_path / "run")
    (told,) = [note for note in shown.notes if "mlflow" in note]
    assert "no route to https://...@server/api" in told
    server.gone = False
    train(recipe(**EVALUATED), out=tmp_path / "run", track=["mlflow"])
    (run,) = server.runs
    assert (run.steps("epoch"), run.status) == ([3, 6], "FINISHED")
    before = copy.deepcopy(server.runs)
    train(recipe(**EVALUATED), out=tmp_path / "run", track=["mlflow"])
    assert server.runs == before


def test_what_is_not_installed_or_not_known_is_refused_before_anything_is_written(
    variables: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'gossamer\[wandb\]'"):
        train(recipe(machine={"trackers": ["wandb"]}), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"expected 'tensorboard', 'mlflow' or 'wandb', got 'mlfow'"):
        train(recipe(), out=tmp_path / "run", track=["mlfow"])
    assert not (tmp_path / "run").exists()


def test_a_phase_alone_is_not_tracked(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = MLflowServer().install(variables)
    train_one(load_recipe(recipe(machine={"trackers": ["mlflow"]})), 0, tmp_path / "run")
    assert server.runs == []
    assert not (tmp_path / "run" / "trackers").exists()


def test_the_command_line_adds_trackers(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mlflow, wandb = MLflowServer().install(variables), WandbServer().install(variables)
    values = load_recipe(recipe(training={"epochs": 1}))
    (tmp_path / "small.yaml").write_text(to_yaml(values))
    words = ["train", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--track", "mlflow", "--track", "wandb", "--track", "mlflow"])
    assert left.value.code == 0
    assert ([run.steps("epoch") for run in mlflow.runs], len(wandb.attempts)) == ([[3]], 1)


def test_trackers_do_not_name_a_run() -> None:
    plain, asked = recipe(), recipe(machine={"tensorboard": True, "trackers": ["wandb", "tensorboard"]})
    assert run_name(load_recipe(plain)) == run_name(load_recipe(asked))
    assert load_recipe(asked).machine.all_trackers == ("tensorboard", "wandb")
    assert load_recipe(plain).machine.all_trackers == ()


def test_parameters_are_flat_and_hold_no_logins() -> None:
    values = recipe(
        data={"unlabelled": {"path": "s3://me:secret@bucket/images", "labels": "y"}}, machine={"trackers": ["mlflow"]}
    )
    told = parameters(load_recipe(values))
    assert told["method.density"] == 0.1
    assert told["machine.trackers.0"] == "mlflow"
    assert told["training.optimizer.lr"] is None
    assert told["data.unlabelled.path"] == "s3://...@bucket/images"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_real_packages_take_down_the_same(variables: pytest.MonkeyPatch, untracked: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    pytest.importorskip("sqlalchemy")
    variables.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    variables.setenv("WANDB_MODE", "offline")
    variables.setenv("WANDB_SILENT", "true")
    values, names = recipe(**EVALUATED), ["tensorboard", "mlflow", "wandb"]
    stopped, finished = StopAfter(3), StopAfter()
    with pytest.raises(KeyboardInterrupt):
        train(values, out=tmp_path / "run", track=names, progress=stopped)
    train(values, out=tmp_path / "run", track=names, progress=finished)
    assert_same_run(untracked, tmp_path / "run")
    assert not [note for note in [*stopped.notes, *finished.notes] if "does not track" in note]
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("gossamer").experiment_id])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [3, 6]
    assert run.data.metrics["fgsm-linf-0.15-n30/robust_accuracy"] >= 0
    kept = list((tmp_path / "run" / "trackers" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(kept) == 2
    assert len({path.name for path in kept}) == 1
