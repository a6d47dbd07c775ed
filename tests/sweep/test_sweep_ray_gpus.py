"""Fractions of GPUs on a Ray cluster: as many tasks at a time as there is room for on them, and no more."""

import os
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweeps import planned

from gossamer.errors import ConfigError
from gossamer.sweep import ray_engine as room
from gossamer.sweep.engine import Ended
from gossamer.sweep.ray_engine import RayEngine
from gossamer.sweep.tasks import Task, phase_task

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def halves() -> Generator[RayEngine]:
    """A cluster of four cores and a GPU that nobody computes on, of which each task has half."""
    yield RayEngine(cpus=1, gpus=0.5, started={"num_cpus": 4, "num_gpus": 1})
    ray.shutdown()


def seen(_task: Task) -> Ended:
    """Return which devices a task sees; stands for doing it."""
    return Ended(ok=True, message=os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


def test_a_gpu_has_room_for_two_tasks_of_half(
    halves: RayEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert halves.slots == 2
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(room, "attempt", seen)
    task = phase_task(next(iter(planned().phases.values())), str(tmp_path))
    calls = [halves.submit(replace(task, key=f"task-{place}")) for place in range(2)]
    assert [ray.get(each.call).message for each in calls] == ["0", "0"]


def test_a_task_of_more_than_there_is_is_refused(halves: RayEngine) -> None:
    assert RayEngine(cpus=1, gpus=0.25).slots == 4
    assert RayEngine(cpus=2, gpus=0.25).slots == 2
    with pytest.raises(ConfigError, match="room for a task of 1 CPUs and 2 GPUs"):
        RayEngine(cpus=1, gpus=2)
