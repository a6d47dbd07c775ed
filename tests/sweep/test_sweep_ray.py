"""On a Ray cluster of this machine a sweep ends as it does anywhere, also where workers are killed or disks full."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from small_sweeps import digests, done_all, end, planned, stored

from gossamer.errors import ConfigError
from gossamer.sweep import ray_engine as room
from gossamer.sweep.drive import drive
from gossamer.sweep.engine import Ended, attempt
from gossamer.sweep.files import LocalFiles
from gossamer.sweep.ray_engine import RayEngine
from gossamer.sweep.store import RECORD
from gossamer.sweep.tasks import Task, phase_task
from gossamer.training import loop

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Generator[RayEngine]:
    # Workers that could not import this module get what they need of it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield RayEngine(cpus=1, started={"num_cpus": 2})
    ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    done_all(planned(), root)
    return root


def test_a_sweep_on_a_cluster_ends_in_the_same_tensors(cluster: RayEngine, undisturbed: Path, tmp_path: Path):
    assert cluster.slots == 2
    assert drive(planned(), str(tmp_path), cluster).complete
    assert end(tmp_path) == end(undisturbed)
    assert set(stored(tmp_path).values()) == {1}


def test_a_cluster_works_on_a_store_that_has_a_url(cluster: RayEngine, undisturbed: Path, tmp_path: Path):
    root = tmp_path / "bucket"
    assert drive(planned(), f"local://{root}", cluster).complete
    assert end(root) == end(undisturbed)


STEPS = 27
"""Of each phase: 3 epochs of 9 full batches."""


def dying(task: Task) -> Ended:
    """Do a task in a worker that dies at its 7th step, and the next time when all is stored but the record."""
    begun = Path(task.root) / "begun" / task.id
    begun.parent.mkdir(exist_ok=True)
    steps, attempts = begun.with_suffix(".steps"), begun.with_suffix(".attempts")
    train_step, write = loop.train_step, LocalFiles.write
    log(attempts)

    def counted(*given: Any, **named: Any) -> Any:
        if steps.exists() and len(steps.read_bytes()) == 6 and len(attempts.read_bytes()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        log(steps)
        return train_step(*given, **named)

    def written(files: LocalFiles, name: str, data: bytes) -> None:
        if name.endswith(RECORD) and len(attempts.read_bytes()) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        write(files, name, data)

    # The process ends with its task.
    loop.train_step, LocalFiles.write = counted, written  # type: ignore[method-assign]
    return attempt(task)


def log(path: Path) -> None:
    """Count one more."""
    with path.open("ab") as file:
        file.write(b".")


def test_workers_that_die_at_every_phase_twice_cost_not_one_step(
    cluster: RayEngine, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(room, "attempt", dying)
    seen: list[bool] = []

    def look(_line: str) -> None:
        finished = digests(tmp_path)
        seen.append(finished.items() <= digests(undisturbed).items())

    outcome = drive(planned(), str(tmp_path), cluster, tell=look)
    assert outcome.complete, outcome.failed
    assert end(tmp_path) == end(undisturbed)
    assert len(seen) == 1 + 3 * 2 + 5  # the first line, two deaths a phase, five tasks
    assert all(seen)
    assert [len(each.read_bytes()) for each in (tmp_path / "begun").glob("phase-*.steps")] == [STEPS] * 3
    assert set(stored(tmp_path).values()) == {2}


def refused(task: Task) -> Ended:
    """Do a task in a worker with no room for a sparse phase from its 12th write on, until a file `room` is there."""
    sync, writes = os.fsync, iter(range(12))

    def full(descriptor: int) -> None:
        if task.phase == "round-1" and next(writes, None) is None and not (Path(task.root) / "room").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    os.fsync = full
    return attempt(task)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[Path, Callable[[], object]]]:
    """A folder whose disk takes the dense phase and no sparse one, and what makes room on it.

    Without the right to mount a small disk, workers refuse the writes.
    """
    root = tmp_path / "disk"
    root.mkdir()
    if mount(root, "size=1900k"):
        monkeypatch.setattr(room, "attempt", refused)
        yield root, (root / "room").touch
        return
    yield root, lambda: mount(root, "remount,size=20m")
    subprocess.run(["umount", "--lazy", root], check=True)


def mount(root: Path, options: str) -> int:
    """Mount a file system in memory, and return the exit status."""
    asked = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", root]
    return subprocess.run(asked, check=False, capture_output=True).returncode


def test_a_full_disk_loses_nothing_and_with_room_the_sweep_goes_on(
    cluster: RayEngine, undisturbed: Path, disk: tuple[Path, Callable[[], object]]
):
    root, make_room = disk
    graph = planned()
    dense, *sparse = graph.phases
    full = drive(graph, str(root), cluster)
    assert list(full.done) == [f"phase-{dense}"]
    assert sorted(full.failed) == sorted(f"phase-{key}" for key in sparse)
    assert all("No space left on device; free space" in why for why in full.failed.values())
    assert sorted(full.blocked) == sorted(f"run-{run.name}" for run in graph.runs)
    assert digests(root) == {dense: digests(undisturbed)[dense]}
    assert [row["done"] for row in end(root)[1]] == [False, False]
    before = (root / "phases" / dense / RECORD).read_bytes()
    make_room()
    again = drive(graph, str(root), cluster)
    assert again.complete, again.failed
    assert end(root) == end(undisturbed)
    assert (root / "phases" / dense / RECORD).read_bytes() == before
    assert set(stored(root).values()) == {1}


def test_what_fails_says_why_and_is_not_tried_again(cluster: RayEngine, tmp_path: Path):
    _, sparse, *_ = planned().phases.values()
    call = cluster.submit(phase_task(sparse, str(tmp_path)))
    while (ended := call.ended()) is None:
        time.sleep(0.1)
    assert (ended.ok, ended.again) == (False, False)
    assert "the phases before it" in ended.message
    assert attempt(phase_task(sparse, str(tmp_path))) == ended


@pytest.mark.parametrize("wrong", [{"cpus": 0}, {"cpus": 1000}, {"gpus": 0.5}])
def test_a_cluster_without_room_is_refused(cluster: RayEngine, wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        RayEngine(**wrong)


def dying_once(counts: Path) -> Callable[[Task], Ended]:
    """Return what does a task in a worker that dies at its 7th step, when it does that for the first time."""

    def begin(task: Task) -> Ended:
        train_step, steps = loop.train_step, counts / task.id
        again = steps.exists()

        def counted(*given: Any, **named: Any) -> Any:
            if not again and steps.exists() and len(steps.read_bytes()) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            log(steps)
            return train_step(*given, **named)

        loop.train_step = counted
        return attempt(task)

    return begin


def test_a_store_elsewhere_holds_what_a_cluster_made_also_where_workers_die(
    cluster: RayEngine, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """By the way of every store that fsspec reaches: workers share no folder, and begin a phase anew."""
    monkeypatch.setattr(room, "attempt", dying_once(tmp_path))
    root = tmp_path / "bucket"
    outcome = drive(planned(), f"local://{root}", cluster)
    assert outcome.complete, outcome.failed
    assert end(root) == end(undisturbed)
    assert set(stored(root).values()) == {1}
    assert [len(each.read_bytes()) for each in tmp_path.glob("phase-*")] == [6 + STEPS] * 3
    assert not (root / "work").exists()
    assert not list(root.rglob("*.tmp"))
