"""On a Ray cluster of this machine a sweep ends as it does anywhere, also where a worker is killed."""

import json
import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from test_sweep_engines import digests, planned

from gossamer.errors import ConfigError
from gossamer.sweep.drive import drive
from gossamer.sweep.engine import attempt
from gossamer.sweep.local import LocalEngine
from gossamer.sweep.ray_engine import RayEngine
from gossamer.sweep.tasks import phase_task

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Generator[RayEngine]:
    yield RayEngine(cpus=1, started={"num_cpus": 2})
    ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    assert drive(planned(), str(root), LocalEngine(slots=2, folder=root / "tasks")).complete
    return root


def test_a_sweep_on_a_cluster_ends_in_the_same_tensors(cluster: RayEngine, undisturbed: Path, tmp_path: Path):
    assert cluster.slots == 2
    assert drive(planned(), str(tmp_path), cluster).complete
    assert digests(tmp_path) == digests(undisturbed)


def test_a_killed_worker_is_replaced(cluster: RayEngine, undisturbed: Path, tmp_path: Path):
    graph, told = planned(), list[str]()
    first = next(iter(graph.phases))

    def kill() -> None:
        last = tmp_path / "work" / first / "last.json"
        while not last.exists():
            time.sleep(0.02)
        holder = json.loads((tmp_path / "locks" / f"phase-{first}" / "lock").read_text())
        os.kill(holder["pid"], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    outcome = drive(graph, str(tmp_path), cluster, tell=told.append)
    killer.join()
    assert outcome.complete, outcome.failed
    assert any("it begins again where it stopped" in line for line in told)
    assert digests(tmp_path) == digests(undisturbed)


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
