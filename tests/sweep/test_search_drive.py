"""A search trains what it proposes, gives up what lies behind, and goes on after a kill with the same trials."""

import csv
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_sweeps import small

import gossamer
from gossamer.cli.main import main
from gossamer.errors import ConfigError, RunError
from gossamer.runs import results as records
from gossamer.sweep.engine import Ended, attempt
from gossamer.sweep.local import LocalEngine
from gossamer.sweep.search import drive as room
from gossamer.sweep.search.drive import run_search
from gossamer.sweep.search.results import as_table, front_text
from gossamer.sweep.search.spec import load_search
from gossamer.sweep.search.study import Trial, open_trials, saved_trials
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import Task

pytest.importorskip("optuna")

SEARCH: dict[str, Any] = {
    "name": "tiny",
    "base": small(
        data={"name": "digits", "train_n": 100, "split": {"held_out": 0.2}},
        training={"epochs": 1, "batch_size": 50, "probes": [{"part": "held_out", "n": 50}]},
    ),
    "space": {"method.density": {"low": 0.05, "high": 0.5, "log": True}},
    "objectives": [{"maximize": "robust"}, {"minimize": "nonzeros"}],
    "evaluation": {"attack": "fgsm", "n": 50},
    "trials": 3,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAUSE", 0.0)


def quiet(_line: str) -> None:
    """Say nothing."""


@dataclass
class Here:
    """An engine that does a task in this process; stops: after how many tasks somebody presses Ctrl-C."""

    slots: int = 1
    stops: int | None = None
    log: list[str] = field(default_factory=list[str])

    def submit(self, task: Task) -> Any:
        if len(self.log) == self.stops:
            raise KeyboardInterrupt
        self.log.append(task.id)
        return _Done(attempt(task))

    def stop(self) -> None:
        """Nothing runs on."""


@dataclass
class _Done:
    outcome: Ended

    def ended(self) -> Ended:
        return self.outcome

    def stop(self) -> None:
        """It has ended."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    ended = run_search(load_search(SEARCH), root, Here(), tell=quiet)
    assert [trial.state for trial in ended.trials] == ["done"] * 3
    return root


def trials(root: Path, **changes: Any) -> list[Trial]:
    return saved_trials(load_search({**SEARCH, **changes}), root)


def test_trials_are_measured_on_the_held_out_split_alone(undisturbed: Path):
    found = trials(undisturbed)
    assert len({trial.parameters["method.density"] for trial in found}) == 3
    for trial in found:
        run = undisturbed / "runs" / str(trial.run)
        (path,) = (each for each in (run / "results").glob("*.json") if each.stem != "network")
        measured = records.read_evaluation(path)
        assert (measured.dataset.part, measured.n, measured.attack) == ("held_out", 50, "fgsm")
        assert trial.values == (measured.robust_accuracy, measured.nonzero)


def test_the_table_and_the_front_say_what_was_found(undisturbed: Path, tmp_path: Path):
    table = gossamer.trials(SEARCH, undisturbed)
    rows = list(csv.DictReader(io.StringIO(table.to_csv(tmp_path / "trials.csv"))))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {"state", "front", "method.density", "robust", "nonzeros", "run"} <= rows[0].keys()
    # The smallest network is beaten by none.
    smallest = min(table, key=lambda row: row["nonzeros"])
    assert smallest["front"]
    assert str(smallest["run"]) in front_text(load_search(SEARCH), trials(undisturbed))
    assert len(gossamer.trials(SEARCH, tmp_path)) == 0


def test_the_front_is_what_no_other_trial_beats(tmp_path: Path):
    search = load_search(SEARCH)
    values = [(0.5, 100.0), (0.4, 50.0), (0.4, 60.0), (0.6, 200.0), (0.3, 200.0)]
    with open_trials(search, tmp_path) as opened:
        for each in values:
            number, _ = opened.propose()
            opened.finish(number, list(each))
        number, _ = opened.propose()
        opened.give_up(number, "after epoch 1", "pruned")
        found = opened.begun()
    assert [trial.number for trial in found if trial.front] == [0, 1, 3]
    assert [line.split()[0] for line in front_text(search, found).splitlines()] == ["trial", "3", "0", "1"]
    last = as_table(search, found).rows[-1]
    assert (last["state"], last["why"], last.get("robust")) == ("pruned", "after epoch 1", None)


def test_an_interrupted_search_goes_on_with_the_same_trials(undisturbed: Path, tmp_path: Path):
    search, engine = load_search(SEARCH), Here(stops=3)
    with pytest.raises(KeyboardInterrupt):
        run_search(search, tmp_path, engine, tell=quiet)
    assert [trial.state for trial in trials(tmp_path)] == ["done", "running"]
    # Somebody was killed while it proposed, too.
    with open_trials(search, tmp_path) as opened:
        opened.study.ask()
    engine.stops = None
    ended = run_search(search, tmp_path, engine, tell=quiet)
    assert len(engine.log) == len(set(engine.log)) == 6
    same = [(trial.parameters, trial.values, trial.run) for trial in trials(undisturbed)]
    assert [(trial.parameters, trial.values, trial.run) for trial in ended.trials] == same
    assert run_search(search, tmp_path, Here(stops=0), tell=quiet).trials == ended.trials
    more = run_search(search.model_copy(update={"trials": 4}), tmp_path, engine, tell=quiet)
    assert len({str(trial.parameters) for trial in more.trials}) == 4


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("gossamer.recipe.semantics.SEMANTICS", {"gossamer.losses": 2}),
        ("gossamer.sweep.plan.images_key", lambda _parts: "of images that moved"),
    ],
)
def test_a_search_is_not_gone_on_with_beside_trials_that_would_be_others(
    place: str, other: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(undisturbed, tmp_path / "store")
    search, engine = load_search({**SEARCH, "trials": 4}), Here(stops=0)
    monkeypatch.setattr(place, other)
    with pytest.raises(RunError, match=r"by which 3 of 3 would be other runs, trial 0 first; .*another name"):
        run_search(search, tmp_path / "store", engine, tell=quiet)
    # It is read, as it ended.
    found = trials(tmp_path / "store")
    assert len(found) == 3
    assert run_search(load_search(SEARCH), tmp_path / "store", engine, tell=quiet).trials == found


def test_a_trial_that_had_not_ended_goes_on_as_another_version_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search, engine = load_search({**SEARCH, "trials": 1}), Here(stops=0)
    with pytest.raises(KeyboardInterrupt):
        run_search(search, tmp_path, engine, tell=quiet)
    (before,) = trials(tmp_path)
    engine.stops = None
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {"gossamer.losses": 2})
    (trial,) = run_search(search, tmp_path, engine, tell=quiet).trials
    assert (before.state, trial.state) == ("running", "done")
    assert before.made_of != trial.made_of
    assert trial.made_of == tuple(Store(str(tmp_path)).standing(str(trial.run))["made_of"])  # pyright: ignore[reportOptionalSubscript]


def test_trials_of_another_search_are_not_mixed(undisturbed: Path):
    with pytest.raises(RunError, match="got another objectives"):
        trials(undisturbed, objectives=[{"maximize": "clean"}])
    with pytest.raises(RunError, match="got another base"):
        trials(undisturbed, evaluation={"attack": "fgsm", "n": 20})
    assert len(trials(undisturbed, trials=9, sampler="random", seed=3)) == 3
    assert trials(undisturbed, name="other") == []


def test_trials_of_one_storage_are_gone_on_with_in_one_store(tmp_path: Path):
    """The lock lies in the store, and two of them may reach one database."""
    search = load_search({**SEARCH, "storage": f"sqlite:///{tmp_path / 'trials.db'}"})
    ran: list[str] = []

    class Interrupting(Here):
        def submit(self, task: Task) -> Any:
            ran.append(task.id)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_search(search, tmp_path / "one", Interrupting(), tell=quiet)
    assert len(ran) == 2
    with pytest.raises(RunError, match="expected the store in which its trials began"):
        run_search(search, tmp_path / "other", Interrupting(), tell=quiet)
    assert len(ran) == 2
    # To look is not to go on.
    assert len(saved_trials(search, tmp_path / "other")) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": "tep"}, "one of tpe, random, nsga-ii"),
        ({"sampler": {"name": "random", "colour": 1}}, "options of Optuna's RandomSampler"),
        ({"storage": "nowhere"}, "a database that SQLAlchemy reaches"),
    ],
)
def test_a_study_that_cannot_be_is_refused(changes: dict[str, Any], said: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=said):
        run_search(load_search({**SEARCH, **changes}), tmp_path, Here(), tell=quiet)


@pytest.mark.parametrize("sampler", [{"name": "tpe", "n_startup_trials": 3}, {"name": "nsga-ii", "population_size": 3}])
def test_samplers_propose_within_the_space_and_not_the_same_again(sampler: Any, tmp_path: Path):
    space = {
        "method.density": {"low": 0.05, "high": 0.5, "log": True},
        "training.epochs": {"low": 2, "high": 8, "step": 2},
        "method.choose": ["magnitude", None],
    }
    search = load_search({**SEARCH, "sampler": sampler, "space": space})
    found: list[Any] = []
    for _ in range(2):
        with open_trials(search, tmp_path) as opened:
            for _ in range(5):
                number, given = opened.propose()
                assert given["training.epochs"] in (2, 4, 6, 8)
                assert isinstance(given["training.epochs"], int)
                assert given["method.choose"] in ("magnitude", None)
                assert 0.05 <= float(given["method.density"] or 0) <= 0.5
                if number % 3:
                    opened.finish(number, [1.0 - number / 20, 100.0 + number])
                else:
                    opened.give_up(number, "", "pruned")
                found.append(given)
    # A genetic sampler may propose a parent again.
    assert len({str(each) for each in found}) == 10 or "nsga-ii" in str(sampler)
    assert [dict(trial.parameters) for trial in saved_trials(search, tmp_path)] == found


@dataclass
class Slow(Here):
    """An engine whose phases of one density train for ever and ever worse, until they are asked to stop."""

    bad: float = 0.0
    stopped: list[str] = field(default_factory=list[str])

    def submit(self, task: Task) -> Any:
        if task.kind == "run" or task.recipe["method"]["density"] != self.bad:
            return super().submit(task)
        return _Endless(self, task)


@dataclass
class _Endless:
    engine: Slow
    task: Task
    polls: int = 0

    def ended(self) -> Ended | None:
        if self.task.id in self.engine.stopped:
            return Ended(ok=False, message="stopped by SIGTERM; a checkpoint is saved", again=True)
        self.polls += 1
        folder = Path(self.task.root) / "work" / self.task.key
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"phase": "train", "held_out/clean": 0.0, "active": 10**9}) + "\n")
        return None

    def stop(self) -> None:
        self.engine.stopped.append(self.task.id)


def test_a_trial_that_lies_behind_is_stopped_and_not_begun_again(undisturbed: Path, tmp_path: Path):
    third = trials(undisturbed)[2]
    bad = float(third.parameters["method.density"] or 0)
    search = load_search({**SEARCH, "prune": {"metric": "held_out/clean", "least": 2}})
    engine, told = Slow(bad=bad), []
    ended = run_search(search, tmp_path, engine, tell=told.append)
    assert [trial.state for trial in ended.trials] == ["done", "done", "pruned"]
    assert len(engine.stopped) == 1
    assert (ended.trials[2].why or "").startswith("after epoch 1: held_out/clean 0.000, where 2 finished trials had")
    assert any("trial 2 is PRUNED" in line for line in told)
    assert not (tmp_path / "runs" / str(third.run)).exists()
    assert not ended.stopped


@pytest.mark.long
def test_trials_share_what_they_train_and_ask_of_it(tmp_path: Path):
    """The dense training of all trials is one, also where they rewind to different epochs of it."""
    base = {**SEARCH["base"], "method": {"name": "rewinding", "density": 0.5}}
    base["training"] = {**base["training"], "epochs": 2}
    search = load_search(
        {**SEARCH, "base": base, "space": {"method.rewind_epoch": [0, 1], "method.choose": ["magnitude", "random"]}}
    )
    ended = run_search(search, tmp_path, Here(slots=2), tell=quiet)
    assert [trial.state for trial in ended.trials] == ["done"] * 3
    assert len(Store(str(tmp_path)).keys()) == 1 + len({trial.run for trial in ended.trials})


def test_failures_in_a_row_end_a_search(tmp_path: Path):
    base = {**SEARCH["base"]}
    base["training"] = {**base["training"], "optimizer": {"lr": 1e30}}
    search = load_search({**SEARCH, "base": base, "trials": 9})
    ended = run_search(search, tmp_path, Here(), tell=quiet)
    assert ended.stopped
    assert [trial.state for trial in ended.trials] == ["failed"] * 3
    assert "finite" in str(ended.trials[0].why)


def test_two_processes_are_not_at_one_search(tmp_path: Path):
    search = load_search(SEARCH)
    with room._held(search, tmp_path), pytest.raises(RunError, match="another process at it"):
        run_search(search, tmp_path, Here(), tell=quiet)


@pytest.mark.long
def test_latency_is_timed_from_the_c_file(undisturbed: Path, tmp_path: Path):
    search = load_search({**SEARCH, "objectives": [{"maximize": "clean"}, {"minimize": "latency"}], "trials": 1})
    (trial,) = run_search(search, tmp_path, Here(), tell=quiet).trials
    assert trial.state == "done", trial.why
    clean, latency = trial.values or (0.0, 0.0)
    assert 0.0 < clean <= 1.0
    assert 0.0 < latency < 10.0
    assert (tmp_path / "runs" / str(trial.run) / "artifacts" / "latency.json").exists()


def command(tmp_path: Path, values: dict[str, Any]) -> list[str]:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["search", str(path), "--store", str(tmp_path / "store"), "--slots", "1"]


def status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_a_dry_run_trains_nothing(undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert status([*command(tmp_path, SEARCH), "--dry-run", "--trials", "7"]) == 0
    said = capsys.readouterr().out
    assert "maximize robust, minimize nonzeros; robust under fgsm, n 50, all on the held-out split" in said
    assert "method.density: 0.05 to 0.5, logarithmic" in said
    assert "0 of 7 trials" in said
    assert not (tmp_path / "store").exists()
    assert status([*command(tmp_path, SEARCH)[:2], "--store", str(undisturbed)]) == 0
    said = capsys.readouterr().out
    assert "3 of 3 trials (3 done)" in said
    assert "small-seed0-" in said
    assert status([*command(tmp_path, SEARCH)[:2], "--store", "s3://bucket/x"]) == 2


@pytest.mark.long
def test_a_killed_search_loses_no_trial_and_counts_none_twice(tmp_path: Path):
    base = {**SEARCH["base"], "training": {**SEARCH["base"]["training"], "epochs": 60}}
    values = {**SEARCH, "base": base, "trials": 2}
    words = [sys.executable, "-m", "gossamer", *command(tmp_path, values)]
    store, search = tmp_path / "store", load_search(values)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as first:
        try:
            _wait_until(lambda: any(store.glob("standing/*")) and any(store.glob("work/*/last.json")))
        finally:
            first.kill()
    assert [trial.state for trial in saved_trials(search, store)] == ["done", "running"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trial 1 goes on" in done.stdout
    same = run_search(search, tmp_path / "undisturbed", Here(), tell=quiet).trials
    assert saved_trials(search, store) == same


@pytest.mark.long
def test_a_training_that_is_pruned_really_stops(tmp_path: Path):
    """A learning rate of nearly nothing, and epochs enough for an hour."""
    base = {**SEARCH["base"]}
    base["training"] = {**base["training"], "epochs": 2000}
    space = {
        "how": {
            "list": {
                "learns": {"training.epochs": 3, "training.optimizer.lr": 0.1},
                "sleeps": {"training.optimizer.lr": 1e-9},
            }
        },
        "method.density": [0.4, 0.5],
    }
    prune = {"metric": "held_out/clean", "least": 1, "after": 3, "quantile": 0.5}
    search = load_search(
        {**SEARCH, "base": base, "space": space, "prune": prune, "objectives": [{"maximize": "clean"}]}
    )
    with open_trials(search, tmp_path) as opened:
        opened.study.enqueue_trial({"how": "learns", "method.density": 0.5})
        opened.study.enqueue_trial({"how": "sleeps", "method.density": 0.5})
    engine = LocalEngine(slots=1, folder=tmp_path / "tasks")
    ended = run_search(search.model_copy(update={"trials": 2}), tmp_path, engine, tell=quiet)
    assert [trial.state for trial in ended.trials] == ["done", "pruned"]
    (work,) = (tmp_path / "work").iterdir()
    assert (work / "last.json").exists()
    assert all(each.process.poll() is not None for each in engine._running.values())
    assert json.loads((work / "status.json").read_text())["state"] == "interrupted"


def _wait_until(holds: Any) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
