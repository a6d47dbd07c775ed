"""Each tracker speaks its package's language: the same run, once, with parameters, epochs, results and an end."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from gossamer.errors import ConfigError
from gossamer.training.trackers import TRACKERS, refuse_missing
from gossamer.training.trackers.mlflow import MLflow
from gossamer.training.trackers.protocol import Tracked, Tracker
from gossamer.training.trackers.wandb import WeightsAndBiases
from trackers_in_memory import MLflowClient, MLflowServer, WandbServer

PARAMETERS = {f"p.{number}": number for number in range(250)}
RESULTS = {"pgd-50-10-linf-0.15/robust_accuracy": 0.4}


def tracked(folder: Path, step: int = 0, **parameters: Any) -> Tracked:
    return Tracked(name="bcs", id="0123456789abcdef", parameters={**PARAMETERS, **parameters}, folder=folder, step=step)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("name", TRACKERS)
def test_what_is_not_installed_is_refused_with_the_extra_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"expected the {name} package.*pip install 'gossamer\[{name}\]'"):
        refuse_missing([name])


def test_a_folder_that_wandb_left_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    with pytest.raises(ConfigError, match="expected the tensorboard package"):
        refuse_missing(["tensorboard"])


def test_a_package_that_cannot_be_imported_is_refused(variables: pytest.MonkeyPatch) -> None:
    variables.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match="import of mlflow halted"):
        MLflow()


def test_mlflow_goes_on_with_its_run(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = MLflowServer().install(variables)
    first = MLflow()
    assert first.begin(tracked(tmp_path, device="cpu", long="x" * 6000)) == 0
    first.metrics(3, {"epoch": 1.0, "sparsifier/moved:conv1": 5.0})
    first.end("interrupted", {})
    (run,) = server.runs
    assert (run.run_name, run.status, server.experiments) == ("bcs", "KILLED", {"gossamer": "0"})
    again = MLflow()
    # Its own history counts, not what the folder remembers.
    assert again.begin(tracked(tmp_path, device="cuda")) == 3
    assert server.runs == [run]
    assert run.status == "RUNNING"
    assert run.params["p.249"] == "249"
    assert run.params["device"] == "cpu"
    assert len(run.params["long"]) == 500
    again.metrics(6, {"epoch": 2.0, "sparsifier/moved:conv1": 4.0})
    again.end("done", RESULTS)
    assert run.steps("epoch") == [3, 6]
    assert run.values("sparsifier/moved_conv1") == [5.0, 4.0]
    assert (run.steps(*RESULTS), run.values(*RESULTS)) == ([6], [0.4])
    assert run.status == "FINISHED"


def test_mlflow_keeps_runs_and_experiments_apart(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = MLflowServer().install(variables)
    variables.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for digit in "01":
        MLflow().begin(Tracked(name="bcs", id=16 * digit, parameters={}, folder=tmp_path, step=0))
    assert len(server.runs) == 2
    assert list(server.experiments) == ["mine"]


def test_runs_that_begin_at_once_share_one_mlflow_experiment(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = MLflowServer().install(variables)
    find, looks = MLflowClient.get_experiment_by_name, iter([None])

    def find_late(client: MLflowClient, name: str) -> Any:
        # Another worker creates it between the first look and the creation.
        if (first := next(looks, server)) is None:
            server.experiments[name] = "7"
            return first
        return find(client, name)

    variables.setattr(MLflowClient, "get_experiment_by_name", find_late)
    assert MLflow().begin(tracked(tmp_path)) == 0
    assert (len(server.runs), server.experiments) == (1, {"gossamer": "7"})


def test_an_mlflow_experiment_that_is_refused_is_an_error(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    MLflowServer().install(variables)

    def refuse(client: MLflowClient, name: str) -> str:
        raise PermissionError(name)

    variables.setattr(MLflowClient, "create_experiment", refuse)
    with pytest.raises(PermissionError):
        MLflow().begin(tracked(tmp_path))


@pytest.mark.parametrize("online", [True, False])
def test_weights_and_biases_goes_on_with_its_run(online: bool, variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = WandbServer(online=online).install(variables)
    first = WeightsAndBiases()
    assert first.begin(tracked(tmp_path)) == 0
    first.metrics(3, {"epoch": 1.0})
    first.metrics(6, {"epoch": 2.0})
    first.end("failed", {})
    assert server.attempts[0].exit_code == 1
    # The folder remembers step 3 alone, as after a kill between logging and noting.
    again = WeightsAndBiases()
    assert again.begin(tracked(tmp_path, step=3)) == (6 if online else 3)
    again.metrics(9, {"epoch": 3.0})
    again.end("done", RESULTS)
    (run,) = server.runs.values()
    assert [row["step"] for row in run.rows] == ([3, 6, 9] if online else [9])
    assert (run.summary, run.exit_code) == (RESULTS, 0)
    asked = run.asked
    assert (asked["project"], asked["name"], asked["id"]) == ("gossamer", "bcs", "0123456789abcdef")
    assert asked["config"] == PARAMETERS
    assert asked["dir"] == str(tmp_path / "trackers")
    assert (asked["settings"].console, asked["settings"].disable_code) == ("off", True)


def test_weights_and_biases_heeds_its_own_variables(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = WandbServer().install(variables)
    variables.setenv("WANDB_PROJECT", "mine")
    variables.setenv("WANDB_DIR", "/somewhere")
    WeightsAndBiases().begin(tracked(tmp_path))
    assert [(run.asked["project"], run.asked["dir"]) for run in server.attempts] == [("mine", "/somewhere")]


def test_weights_and_biases_without_a_key_is_refused_before_training(variables: pytest.MonkeyPatch) -> None:
    WandbServer(key=False).install(variables)
    with pytest.raises(ConfigError, match=r"No API key configured.*WANDB_MODE=offline"):
        WeightsAndBiases()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_log_and_nothing_of_attempts_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    for losses, state in (([3.0, 2.0, 1.0], "interrupted"), ([3.0, 2.5], "done")):
        tracker: Tracker = TRACKERS["tensorboard"]()
        assert tracker.begin(tracked(tmp_path, step=6)) == 0
        for number, loss in enumerate(losses, start=1):
            tracker.metrics(3 * number, {"loss": loss})
        tracker.end(state, RESULTS)  # pyright: ignore[reportArgumentType]
    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [(3, 3.0), (6, 2.5)]
    assert [event.step for event in seen.Scalars(f"results/{next(iter(RESULTS))}")] == [6]
