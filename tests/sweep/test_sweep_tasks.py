"""Phases are trained once, by whoever gets them, and what is put together of them is what one process trains."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_sweeps
import torch
from small_sweeps import done_all

from gossamer.errors import RunError
from gossamer.recipe.load import validate
from gossamer.recipe.open import open_run
from gossamer.recipe.train import train
from gossamer.runs import RunFolder, atomic, lock, metrics
from gossamer.sweep import tasks as room
from gossamer.sweep.files import RemoteFiles, StoreError
from gossamer.sweep.plan import Plan
from gossamer.sweep.store import Store
from gossamer.sweep.tasks import is_done, perform, phase_task, run_task


def planned(**axes: Any) -> Plan:
    chosen = axes or {"density": {"field": "method.density", "values": [0.5, 0.1]}}
    return small_sweeps.planned({"base": small_sweeps.rewound(), "axes": chosen})


def stored(path: Path) -> dict[str, torch.Tensor]:
    return atomic.read_safetensors(path)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_shared_phases_is_the_run_of_one_process(tmp_path: Path):
    graph = planned()
    done_all(graph, tmp_path)
    assert len(graph.phases) == 3
    for run in graph.runs:
        alone = train(run.recipe, out=tmp_path / f"alone-{run.name}")
        shared = open_run(tmp_path / "runs" / run.name)
        for path in sorted(alone.folder.states.glob("*.safetensors")):
            assert equal(stored(path), stored(shared.folder.states / path.name)), path.name
        ignored = {"seconds", "seconds_left", "images_per_second"}
        lines = [
            [{key: value for key, value in line.items() if key not in ignored} for line in metrics.read(each.folder)]
            for each in (alone, shared)
        ]
        assert lines[0] == lines[1]
        assert [path.name for path in sorted(alone.folder.results.iterdir())] == [
            path.name for path in sorted(shared.folder.results.iterdir())
        ]
        for path in alone.folder.results.glob("fgsm*.json"):
            other = atomic.read_json(shared.folder.results / path.name)
            assert atomic.read_json(path)["attacks"][0]["robust"] == other["attacks"][0]["robust"]


def test_a_state_takes_its_room_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*paths: object) -> None:
        raise OSError("no links here")

    def places(root: Path) -> set[int]:
        return {run.stat().st_ino for run in root.glob("runs/*/states/train.end.safetensors")}

    done_all(planned(), tmp_path / "linked")
    monkeypatch.setattr(os, "link", refuse)
    done_all(planned(), tmp_path / "copied")
    assert (len(places(tmp_path / "linked")), len(places(tmp_path / "copied"))) == (1, 2)
    (path, *_) = (tmp_path / "linked").glob("runs/*/states/train.end.safetensors")
    other = tmp_path / "copied" / path.relative_to(tmp_path / "linked")
    assert equal(stored(path), stored(other))
    # A state that is written again is another file: the others keep theirs.
    atomic.copy(other, path)
    assert len(places(tmp_path / "linked")) == 2


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = planned()
    done_all(graph, tmp_path)
    monkeypatch.setattr(room, "train_one", None)
    monkeypatch.setattr(room, "train", None)
    done_all(graph, tmp_path)
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())


def test_an_epoch_that_nobody_published_is_trained_again(tmp_path: Path):
    first = next(iter(planned().phases.values()))
    perform(phase_task(first, str(tmp_path)))
    later = replace(first, publish=(1, 2))
    assert is_done(phase_task(first, str(tmp_path)))
    assert not is_done(phase_task(later, str(tmp_path)))
    perform(phase_task(later, str(tmp_path)))
    assert is_done(phase_task(later, str(tmp_path)))
    record = Store(str(tmp_path)).find(first.key)
    assert record is not None
    assert {"train.end", "train.epoch-1", "train.epoch-2"} <= set(record.states)


def test_a_phase_goes_on_where_a_killed_worker_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = planned()
    node = next(iter(graph.phases.values()))
    task = phase_task(node, str(tmp_path / "whole"))
    perform(task)
    broken = replace(task, root=str(tmp_path / "broken"))
    from gossamer.training import loop  # noqa: PLC0415

    before, steps = loop.train_step, iter(range(6))

    def dying(*given: Any, **named: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return before(*given, **named)

    monkeypatch.setattr(loop, "train_step", dying)
    with pytest.raises(KeyboardInterrupt):
        perform(broken)
    assert not is_done(broken)
    assert (tmp_path / "broken" / "work" / node.key / "last.json").exists()
    monkeypatch.setattr(loop, "train_step", before)
    perform(broken)
    records = [Store(each.root).find(node.key) for each in (task, broken)]
    assert records[0] is not None
    assert records[1] is not None
    whole, resumed = (
        {name: stored(Path(root) / file.name) for name, file in record.states.items()}
        for root, record in zip((task.root, broken.root), records, strict=True)
        if record
    )
    assert whole.keys() == resumed.keys()
    assert all(equal(whole[name], resumed[name]) for name in whole)


def test_half_a_phase_is_never_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node = next(iter(planned().phases.values()))
    task = phase_task(node, str(tmp_path))
    monkeypatch.setattr(Store, "_put_lines", _full_disk)
    with pytest.raises(RunError, match="disk is full"):
        perform(task)
    assert not is_done(task)
    assert not list((tmp_path / "phases" / node.key).glob("*"))
    monkeypatch.undo()
    assert perform(task) == "done"


def test_a_record_that_was_written_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node = next(iter(planned().phases.values()))
    task, sync = phase_task(node, str(tmp_path)), atomic.sync

    def refuse(path: Path) -> None:
        if (tmp_path / "phases" / node.key / "record.json").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(atomic, "sync", refuse)
    with pytest.raises(RunError, match="No space left"):
        perform(task)
    monkeypatch.undo()
    assert perform(task) == "was done"
    record = Store(str(tmp_path)).find(node.key)
    assert record is not None
    assert all((tmp_path / each.name).is_file() for each in (*record.states.values(), record.metrics))


@pytest.mark.long
def test_a_disk_full_at_any_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = planned()
    done_all(graph, tmp_path / "whole")
    root, sync, refusals = tmp_path / "disk", os.fsync, 0
    for task in [*(phase_task(node, str(root)) for node in graph.phases.values()), run_task(graph.runs[0], str(root))]:
        while not is_done(task):
            left = iter(range(refusals))

            def full(descriptor: int, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                sync(descriptor)

            monkeypatch.setattr(os, "fsync", full)
            with suppress(RunError):
                perform(task)
            monkeypatch.undo()
            refusals += 3
        assert refusals >= 12
        refusals = 0
    for key in graph.phases:
        whole, full_once = (Store(str(each)).find(key) for each in (tmp_path / "whole", root))
        assert whole is not None
        assert full_once is not None
        for name, file in whole.states.items():
            assert equal(stored(tmp_path / "whole" / file.name), stored(root / full_once.states[name].name)), name
        assert len(list((root / "phases" / key).glob("*/"))) == 1


def _full_disk(*_given: Any) -> Any:
    raise RunError("store", expected="room", got="none", remedy="disk is full")


def test_one_waits_while_another_is_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node = next(iter(planned().phases.values()))
    task = phase_task(node, str(tmp_path))
    held = RunFolder(tmp_path / "locks" / task.id)
    atomic.make_directory(held.path)
    waited: list[float] = []

    def finish(seconds: float) -> None:
        waited.append(seconds)
        other = replace(task, root=str(tmp_path / "elsewhere"))
        perform(other)
        shutil.copytree(tmp_path / "elsewhere" / "phases", tmp_path / "phases")

    monkeypatch.setattr(room.time, "sleep", finish)
    with lock.attempt(held) as mine:
        assert mine
        assert perform(task) == "another did it"
    assert waited == [room.POLL]


def test_damage_in_the_store_is_told(tmp_path: Path):
    graph = planned()
    dense, sparse, *_ = graph.phases.values()
    perform(phase_task(dense, str(tmp_path)))
    record = Store(str(tmp_path)).find(dense.key)
    assert record is not None
    path = tmp_path / record.states["train.end"].name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(RunError, match="as they were stored"):
        perform(phase_task(sparse, str(tmp_path)))
    (tmp_path / "phases" / dense.key / "record.json").write_text("{")
    with pytest.raises(RunError, match="a record in JSON"):
        is_done(phase_task(dense, str(tmp_path)))


def test_epochs_that_another_sweep_asked_for_stay(tmp_path: Path):
    node = next(iter(planned().phases.values()))
    for epoch in (1, 2):
        perform(phase_task(replace(node, publish=(epoch,)), str(tmp_path)))
    record = Store(str(tmp_path)).find(node.key)
    assert record is not None
    assert set(record.states) == {"train.end", "train.epoch-1", "train.epoch-2"}


@pytest.mark.parametrize("at_once", [False, True])
def test_of_two_who_finish_a_phase_at_a_url_the_first_counts_and_the_second_adds_what_it_lacks(
    at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nobody can be kept from training the same there, and others may have begun from the first one's states."""
    node = next(iter(planned().phases.values()))
    root = f"memory://{tmp_path.name}/bucket"
    perform(replace(phase_task(node, root), publish=(1,)))
    first = Store(root).find(node.key)
    assert first is not None
    find, looks = Store.find, iter([None] * 3 if at_once else [])
    monkeypatch.setattr(Store, "find", lambda self, key, states=(): next(looks, find(self, key, states)))
    perform(replace(phase_task(node, root), publish=(1, 2)))
    monkeypatch.undo()
    both = Store(root).find(node.key)
    assert both is not None
    assert set(both.states) == {"train.end", "train.epoch-1", "train.epoch-2"}
    assert {name: file.name for name, file in both.states.items() if name in first.states} == {
        name: file.name for name, file in first.states.items()
    }
    assert (both.stored, both.metrics) == (first.stored, first.metrics)
    # A third who adds nothing leaves nothing.
    files = Store(root).files.within(f"phases/{node.key}")
    looks = iter([None] * 3)
    monkeypatch.setattr(Store, "find", lambda self, key, states=(): next(looks, find(self, key, states)))
    perform(replace(phase_task(node, root), publish=(2,)))
    assert Store(root).find(node.key) == both
    assert Store(root).files.within(f"phases/{node.key}") == files


def test_an_epoch_that_training_never_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node = next(iter(planned().phases.values()))
    task = replace(phase_task(node, str(tmp_path)), publish=(7,))
    with pytest.raises(RunError, match=r"expected the states train\.epoch-7, got a training that ended before"):
        perform(task)


def test_a_run_of_other_phases_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = planned(seed={"seeds": 1})
    done_all(graph, tmp_path)
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {"gossamer.losses": 2})
    later = planned(seed={"seeds": 1})
    (before,), (after,) = graph.runs, later.runs
    assert before.name == after.name
    assert not is_done(run_task(after, str(tmp_path)))
    done_all(later, tmp_path)
    assert is_done(run_task(after, str(tmp_path)))
    assert not is_done(run_task(before, str(tmp_path)))


def test_a_run_is_evaluated_anew_on_other_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = planned(seed={"seeds": 1})
    done_all(graph, tmp_path)
    (run,) = graph.runs
    other = run_task(replace(run, images="of a test image that moved"), str(tmp_path))
    assert is_done(run_task(run, str(tmp_path)))
    assert not is_done(other)
    monkeypatch.setattr("gossamer.recipe.identity.images_key", lambda _parts: "of a test image that moved")
    (tmp_path / "runs" / run.name / "results" / "stale.json").write_text("{}")
    assert perform(other) == "done"
    assert is_done(other)
    assert not (tmp_path / "runs" / run.name / "results" / "stale.json").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    graph, root = planned(seed={"seeds": 1}), tmp_path_factory.mktemp("finished")
    done_all(graph, root)
    return graph, root


@pytest.mark.parametrize(
    "lost", ["", "recipe.yaml", "states/final.safetensors", "results/network.json", "results/fgsm*"]
)
def test_a_run_that_lost_a_file_is_put_together_again_from_its_phases(
    lost: str, finished: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    graph, before = finished
    shutil.copytree(before, tmp_path / "store")
    task = run_task(graph.runs[0], str(tmp_path / "store"))
    run = RunFolder(tmp_path / "store" / "runs" / task.key)
    assert is_done(task)
    (path,) = run.path.glob(lost) if lost else (run.path,)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not is_done(task)
    stood: list[bool] = []
    stand = Store.stand
    monkeypatch.setattr(Store, "stand", lambda self, name, said: (stood.append(said["done"]), stand(self, name, said)))
    assert perform(task) == "done"
    assert is_done(task)
    # A worker that dies in between leaves a run that is not done.
    assert stood == [False, True]
    whole = RunFolder(before / "runs" / task.key)
    assert equal(stored(run.state("final")), stored(whole.state("final")))
    assert [line["loss"] for line in metrics.read(run)] == [line["loss"] for line in metrics.read(whole)]
    (again,), (first,) = (each.results.glob("fgsm*.json") for each in (run, whole))
    assert atomic.read_json(again)["attacks"][0]["robust"] == atomic.read_json(first)["attacks"][0]["robust"]


def test_a_run_that_lost_a_file_at_a_url_is_put_together_again(finished: tuple[Plan, Path], tmp_path: Path):
    graph, before = finished
    root = f"memory://{tmp_path.name}/bucket"
    files = Store(root).files
    for path in before.rglob("*"):
        if path.is_file():
            files.put(path, path.relative_to(before).as_posix())
    task = run_task(graph.runs[0], root)
    assert is_done(task)
    files.remove(f"runs/{task.key}/results/network.json")
    assert not is_done(task)
    assert perform(task) == "done"
    assert is_done(task)


def test_what_a_store_at_a_url_holds_is_one_question_a_run(
    finished: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (run,), before = finished[0].runs, finished[1]
    files = RemoteFiles(f"memory://{tmp_path.name}/bucket")
    for path in (before / "runs").rglob("*"):
        if path.is_file():
            files.put(path, path.relative_to(before).as_posix())
    asked: list[str] = []
    find = files._system.find
    monkeypatch.setattr(files._system, "find", lambda path: (asked.append(path), find(path))[1])
    monkeypatch.setattr(type(files), "read", None)
    assert Store(files.url).holds(run.name, run.recipe)
    assert len(asked) == 1


def test_a_task_is_one_workers_whatever_its_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As under a scheduler that sets what torchrun sets: nobody is waited for."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("gossamer.recipe.train.join", None)
    graph = planned(seed={"seeds": 1})
    done_all(graph, tmp_path)
    assert is_done(run_task(graph.runs[0], str(tmp_path)))


def test_a_machine_that_would_train_something_else_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = phase_task(next(iter(planned().phases.values())), str(tmp_path))
    monkeypatch.setattr("gossamer.recipe.semantics.SEMANTICS", {"gossamer.data.augment": 2})
    with pytest.raises(RunError, match="the phase that was planned"):
        perform(task)


def test_a_machine_that_would_evaluate_on_other_images_refuses(
    finished: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """And leaves a folder in which one that has them goes on."""
    graph, before = finished
    shutil.copytree(before / "phases", tmp_path / "phases")
    task = run_task(graph.runs[0], str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("gossamer.recipe.identity.images_key", lambda _parts: "others")
        with pytest.raises(RunError, match="images to evaluate on: expected those that were planned"):
            perform(task)
    assert not is_done(task)
    assert perform(task) == "done"


def test_a_phase_goes_on_where_test_images_changed_which_it_never_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = phase_task(next(iter(planned().phases.values())), str(tmp_path))
    monkeypatch.setattr(Store, "publish", None)
    with pytest.raises(TypeError):
        perform(task)
    monkeypatch.undo()
    env = tmp_path / "work" / task.key / "env.json"
    about = atomic.read_json(env)
    about["data"]["test"] = "of a test image that moved"
    atomic.write_json(env, about)
    assert perform(task) == "done"


def test_a_phase_that_another_machine_finished_is_waited_for(
    finished: tuple[Plan, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """File systems of networks show late what is there."""
    graph, before = finished
    shutil.copytree(before / "phases", tmp_path / "phases")
    slept: list[float] = []
    monkeypatch.setattr(room.time, "sleep", slept.append)
    find, looks = Store.find, iter([None] * 3)
    monkeypatch.setattr(Store, "find", lambda self, key, states=(): next(looks, find(self, key, states)))
    assert perform(run_task(graph.runs[0], str(tmp_path))) == "done"
    assert slept == [room.POLL] * 3


def test_a_phase_waits_for_its_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "UNSEEN", 0.0)
    _, sparse, *_ = planned().phases.values()
    with pytest.raises(RunError, match="the phases before it"):
        perform(phase_task(sparse, str(tmp_path)))


def test_a_store_may_be_a_url(tmp_path: Path):
    graph = planned(seed={"seeds": 1})
    root = f"memory://{tmp_path.name}/bucket"
    for task in [phase_task(node, root) for node in graph.phases.values()]:
        assert perform(task) == "done"
    (run,) = graph.runs
    assert perform(run_task(run, root)) == "done"
    assert is_done(run_task(run, root))
    files = Store(root).files
    for name in ("recipe.yaml", "states/final.safetensors", "results/network.json"):
        assert files.read(f"runs/{run.name}/{name}"), name
    assert files.read(f"runs/{run.name}/lock") is None
    assert len(Store(root).keys()) == 2


def test_no_half_of_a_file_is_ever_under_its_name_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files = RemoteFiles(f"memory://{tmp_path.name}")
    (tmp_path / "file").write_bytes(b"whole")
    files.put(tmp_path / "file", "runs/a/file")
    system = files._system
    pipe_file, seen = system.pipe_file, []

    def half(path: str, data: bytes) -> None:
        pipe_file(path, data[:2])
        seen.append(files.read("runs/a/file"))
        pipe_file(path, data)
        raise OSError("the line broke")

    monkeypatch.setattr(system, "pipe_file", half)
    (tmp_path / "file").write_bytes(b"other")
    for store in (lambda: files.put(tmp_path / "file", "runs/a/file"), lambda: files.write("runs/a/file", b"other")):
        with pytest.raises(StoreError, match="the line broke"):
            store()
        assert seen.pop() == files.read("runs/a/file") == b"whole"


def test_a_store_that_moves_nothing_onto_a_file_takes_what_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = RemoteFiles(f"memory://{tmp_path.name}")
    system = files._system
    move = system.mv

    def onto_nothing(source: str, target: str) -> None:
        if not system.exists(target):
            move(source, target)

    monkeypatch.setattr(system, "mv", onto_nothing)
    for data in (b"first", b"other", b"other"):
        files.write("standing/a.json", data)
        assert files.read("standing/a.json") == data
    assert [Path(name).name for name in system.ls(files._at("standing"), detail=False)] == ["a.json"]
    monkeypatch.setattr(system, "mv", lambda *_: None)
    with pytest.raises(StoreError):
        files.write("standing/a.json", b"last")


def test_a_run_that_another_put_together_meanwhile_stays_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (run,) = (graph := planned(seed={"seeds": 1})).runs
    root = f"memory://{tmp_path.name}/bucket"
    for task in [phase_task(node, root) for node in graph.phases.values()]:
        perform(task)
    task = run_task(run, root)
    perform(task)
    stood: list[bool] = []
    stand = Store.stand
    monkeypatch.setattr(Store, "stand", lambda self, name, said: (stood.append(said["done"]), stand(self, name, said)))
    # Both looked before either was done.
    looks = iter([False, False])
    monkeypatch.setattr(room, "is_done", lambda _task: next(looks))
    assert perform(task).startswith("done")
    assert stood == [True]


def test_tasks_survive_being_written_down(tmp_path: Path):
    from gossamer.sweep.work import read_task, write_task  # noqa: PLC0415

    graph = planned()
    for task in [phase_task(node, "root", tmp_path) for node in graph.phases.values()]:
        path = write_task(task, tmp_path)
        read = read_task(path)
        # Two drivers may ask the same task for other epochs: neither reads the other's file.
        assert write_task(task, tmp_path) != path
        assert (read.id, read.parents, read.publish, read.data_dir) == (
            task.id,
            task.parents,
            task.publish,
            task.data_dir,
        )
        assert validate(read.recipe) == validate(task.recipe)
