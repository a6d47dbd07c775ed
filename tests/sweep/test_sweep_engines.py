"""Workers are killed, drivers are killed, disks are full: nothing finished is lost, and the end is the same."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_sweeps import CORNER, command, digests, planned

from gossamer.cli.engines import _devices, make_engine
from gossamer.cli.main import main
from gossamer.errors import ConfigError
from gossamer.runs import atomic
from gossamer.sweep import engine as room
from gossamer.sweep.drive import drive
from gossamer.sweep.engine import Ended
from gossamer.sweep.local import LocalEngine
from gossamer.sweep.results import read_results
from gossamer.sweep.slurm import SlurmEngine
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import phase_task


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    outcome = drive(planned(), str(root), LocalEngine(slots=2, folder=root / "tasks"), tell=_quiet)
    assert outcome.complete, outcome.failed
    return root


def gossamer(arguments: list[str]) -> int:
    """Run a command, and return its exit status."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def _quiet(_line: str) -> None:
    """Say nothing."""


def test_two_strategies_are_one_dense_training_and_two_sparse_ones(undisturbed: Path):
    assert len(digests(undisturbed)) == 3
    table = read_results(CORNER, undisturbed)
    assert len(table) == 2
    assert all(table.column("done"))


class Killing(LocalEngine):
    """An engine whose first worker of every phase is killed after its first checkpoint."""

    def submit(self, task: Any) -> Any:
        started = super().submit(task)
        seen = self.folder / f"{task.id}.killed"
        if task.kind == "phase" and not seen.exists():
            last = Path(task.root) / "work" / task.key / "last.json"
            deadline = time.monotonic() + 60
            while not last.exists() and started.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            seen.touch()
            started.process.kill()
        return started


def test_killed_workers_change_nothing(undisturbed: Path, tmp_path: Path):
    told: list[str] = []
    outcome = drive(planned(), str(tmp_path), Killing(slots=2, folder=tmp_path / "tasks"), tell=told.append)
    assert outcome.complete, outcome.failed
    assert sum("killed by SIGKILL" in line for line in told) == 3
    assert digests(tmp_path) == digests(undisturbed)


def test_a_worker_is_told_of_by_what_it_said_itself(tmp_path: Path):
    engine = LocalEngine(slots=1, folder=tmp_path)
    task = phase_task(next(iter(planned().phases.values())), str(tmp_path))
    (tmp_path / f"{task.id}.log").write_text("the last one was done\n")
    started = engine.submit(task)
    started.process.kill()
    started.process.wait()
    assert started.ended() == Ended(
        ok=False, message=f"killed by SIGKILL: it said nothing (all of it: {started.log})", again=True
    )


def test_relative_paths_go_out_from_the_drivers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "perform", lambda _task: str(Path.cwd()))
    node, here = next(iter(planned().phases.values())), str(Path.cwd())
    monkeypatch.chdir(tmp_path)
    task = phase_task(node, "store")
    monkeypatch.chdir(here)
    assert room.attempt(task).message == str(tmp_path)
    assert str(Path.cwd()) == here
    assert room.attempt(replace(task, where=str(tmp_path / "elsewhere"))).message == here


@pytest.mark.long
def test_a_killed_driver_and_two_at_once_change_nothing(undisturbed: Path, tmp_path: Path):
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL)
    work = tmp_path / "store" / "work"
    deadline = time.monotonic() + 60
    while not list(work.glob("*/last.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    both = [subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert digests(tmp_path / "store") == digests(undisturbed)
    assert not list(work.iterdir())


@pytest.mark.long
def test_an_interrupted_sweep_saves_and_goes_on(undisturbed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    first = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    work = tmp_path / "store" / "work"
    deadline = time.monotonic() + 60
    while not list(work.glob("*/last.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "to go on: gossamer sweep" in said
    logs = [log.read_text() for log in (tmp_path / "store" / "tasks").glob("phase-*.log")]
    assert any("a checkpoint is saved" in log for log in logs)
    assert subprocess.run(command(tmp_path), stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert digests(tmp_path / "store") == digests(undisturbed)


@pytest.mark.long
def test_a_store_that_refuses_a_write_keeps_back_only_what_needs_it(tmp_path: Path):
    graph = planned()
    bad = next(node for node in graph.phases.values() if node.name != "train")
    atomic.make_directory(tmp_path / "phases")
    (tmp_path / "phases" / bad.key).write_text("in the way")
    engine = LocalEngine(slots=2, folder=tmp_path / "tasks")
    outcome = drive(graph, str(tmp_path), engine, tell=_quiet)
    assert list(outcome.failed) == [f"phase-{bad.key}"]
    assert len(outcome.blocked) == 1
    assert len(outcome.done) == 2 + 1
    (tmp_path / "phases" / bad.key).unlink()
    assert drive(graph, str(tmp_path), engine, tell=_quiet).complete


@pytest.mark.long
def test_jobs_of_submitit_do_tasks_and_say_how_they_ended(tmp_path: Path):
    pytest.importorskip("submitit")
    node = next(iter(planned().phases.values()))
    engine = SlurmEngine(slots=1, folder=tmp_path / "tasks", cluster="local", options={"cpus_per_task": 1})
    task = phase_task(node, str(tmp_path))
    assert _ended(engine.submit(task)).ok
    assert Store(str(tmp_path)).find(node.key) is not None
    assert not [*(tmp_path / "tasks").glob("*.json")]
    _, sparse, *_ = planned().phases.values()
    orphan = _ended(engine.submit(phase_task(sparse, str(tmp_path / "elsewhere"))))
    assert (orphan.ok, orphan.again) == (False, False)
    dying = engine.submit(phase_task(sparse, str(tmp_path)))
    _wait_for(tmp_path / "work" / sparse.key / "last.json")
    (child,) = Path(f"/proc/{dying.job.job_id}/task/{dying.job.job_id}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    killed = _ended(dying)
    assert (killed.ok, killed.again) == (False, True)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _ended(handle: Any) -> Any:
    deadline = time.monotonic() + 120
    while (found := handle.ended()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_dry_run_prints_the_graph_and_trains_nothing(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "corner.yaml"
    path.write_text(yaml.safe_dump(CORNER))
    assert gossamer(["sweep", str(path), "--store", str(tmp_path / "store"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "corner: 2 cases, 2 runs" in said
    assert "train: 1 distinct of 2, 3 epochs, 0 done" in said
    assert "round-1: 2 distinct of 2, 6 epochs, 0 done" in said
    assert "epochs: 9, where runs alone would train 12" in said
    assert "3 phases there is nothing to go by for" in said
    assert "left to evaluate: 2 evaluations there is nothing to go by for" in said
    assert not (tmp_path / "store").exists()
    assert gossamer(["sweep", str(path), "--store", str(undisturbed), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "runs put together and evaluated: 2 of 2" in said
    assert "left to train: about 0.0 min of one worker" in said
    assert "left to evaluate" not in said
    longer = {**CORNER, "set": {"training.epochs": 4}}
    path.write_text(yaml.safe_dump(longer))
    assert gossamer(["sweep", str(path), "--store", str(undisturbed), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left to evaluate: about" in said
    assert "nothing to go by" not in said


@pytest.mark.parametrize(
    "flags", [["--store", "s3://bucket/x"], ["--engine", "ray", "--slots", "2"], ["--engine", "slurm", "--gpus", "0"]]
)
@pytest.mark.parametrize("command", ["sweep", "reproduce"])
def test_what_an_engine_would_not_heed_is_refused_before_data_are_read(
    command: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(f"gossamer.cli.{command}.make_plan", None)
    path = tmp_path / "corner.yaml"
    path.write_text(yaml.safe_dump(CORNER))
    own = [] if "--store" in flags else ["--store", str(tmp_path / "store")]
    assert gossamer([command, str(path) if command == "sweep" else "bcs/table-4", *own, *flags]) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine", "rya"], "--engine"),
        (["--slots", "0"], "--slots"),
        (["--attempts", "0"], "--attempts"),
        (["--store", "s3://bucket/x"], "--store"),
        (["--engine", "ray", "--slots", "2"], "--slots"),
        (["--engine", "slurm", "--gpus", "0"], "--gpus"),
        (["--engine-option", "cpus=2"], "--engine-option"),
        (["--engine", "ray", "--engine-option", "cpu=2"], "--engine-option"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "corner.yaml"
    path.write_text(yaml.safe_dump(CORNER))
    own = [] if "--store" in flags else ["--store", str(tmp_path / "store")]
    assert gossamer(["sweep", str(path), *own, *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["sweep", "grid.yaml"], ["search", "wide.yaml"], ["reproduce", "bcs/table-4"]])
def test_what_hands_work_over_itself_is_refused_under_torchrun(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert gossamer(words) == 2
    said = capsys.readouterr().err
    assert f"one process of `gossamer {words[0]}`" in said
    assert "got:      4 of them" in said
    assert "start it once, without torchrun" in said


def test_an_engine_needs_a_slot(tmp_path: Path):
    with pytest.raises(ConfigError, match="--slots"):
        LocalEngine(slots=0, folder=tmp_path)


class Idle:
    """Stands for a worker's process: it runs until the test lets it end."""

    def __init__(self, *_words: Any, env: dict[str, str], **_given: Any) -> None:
        self.env = env
        self.code: int | None = None

    def poll(self) -> int | None:
        return self.code


def test_slots_share_devices_and_cores_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.sweep.local.subprocess.Popen", Idle)
    monkeypatch.setattr("gossamer.sweep.local.cores", lambda: 9)
    engine = LocalEngine(slots=4, folder=tmp_path, gpus=("0", "1"))
    graph = planned()
    first = phase_task(next(iter(graph.phases.values())), str(tmp_path))
    started: list[Any] = [engine.submit(replace(first, key=f"task-{place}")) for place in range(4)]
    assert [each.slot for each in started] == [0, 1, 2, 3]
    assert [each.process.env["CUDA_VISIBLE_DEVICES"] for each in started] == ["0", "1", "0", "1"]
    assert {each.process.env["OMP_NUM_THREADS"] for each in started} == {"2"}
    # Who comes next takes the slot that is free, and its device.
    started[2].process.code = 0
    later: Any = engine.submit(replace(first, key="task-4"))
    assert (later.slot, later.process.env["CUDA_VISIBLE_DEVICES"]) == (2, "0")


def test_without_devices_a_worker_sees_what_its_driver_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.sweep.local.subprocess.Popen", Idle)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    task = phase_task(next(iter(planned().phases.values())), str(tmp_path))
    started: Any = LocalEngine(slots=2, folder=tmp_path).submit(task)
    assert started.process.env["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.parametrize(("seen", "devices"), [("0,2", ["0", "2"]), ("-1", []), ("", [])])
def test_gpus_that_are_hidden_are_none(seen: str, devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert _devices(None) == devices


@pytest.mark.parametrize("given", [{"cpus": "two"}, {"_calls": []}, {"cores": 2}])
def test_options_of_ray_are_checked_before_it_starts(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--engine-option"):
        make_engine("ray", "store", None, None, given)
