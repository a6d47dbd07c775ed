"""On a Ray cluster of several nodes, drivers are killed, two drive one sweep, a node is lost: the end is the same."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import pytest
from small_sweeps import command, done_all, end, planned, stored

from gossamer.errors import ConfigError
from gossamer.sweep.ray_engine import RayEngine
from gossamer.sweep.store import RECORD

pytestmark = pytest.mark.long
ray = pytest.importorskip("ray")

PATIENCE = 300


class Cluster:
    """A head without cores, and nodes of one core each; every one a session of processes that end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self.environment: Mapping[str, str] = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0"}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._start(
            "--head", f"--port={self.port}", f"--ray-client-server-port={free_port()}", "--num-cpus=0",
            f"--temp-dir={folder}", "--include-dashboard=false",
        )  # fmt: skip

    def add(self) -> None:
        """Start a node of one core."""
        self._start(f"--address=127.0.0.1:{self.port}", "--num-cpus=1")

    def lose(self, node: "subprocess.Popen[bytes]") -> None:
        """Kill a node and all of its workers."""
        self.nodes.remove(node)
        end_session(node)

    def _start(self, *arguments: str) -> None:
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        with log.open("wb") as output:
            start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
            node = subprocess.Popen(start, env=self.environment, stdout=output, stderr=output, start_new_session=True)
        self.nodes.append(node)
        wait_until(lambda: b"Ray runtime started" in log.read_bytes() or node.poll() is not None)
        assert node.poll() is None, log.read_text()


@pytest.fixture(scope="module")
def cluster() -> Generator[Cluster]:
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        found = Cluster(Path(folder))
        try:
            found.add()
            found.add()
            yield found
        finally:
            for node in reversed(found.nodes):
                end_session(node)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    done_all(planned(), root)
    return root


@pytest.fixture
def drivers() -> Generator[list["subprocess.Popen[str]"]]:
    """Drivers that a test started; they end with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        with each:
            end_session(each)


def driver(folder: Path, cluster: Cluster | None) -> "subprocess.Popen[str]":
    """Start `gossamer sweep` in a session of its own, on a cluster or with one of its own."""
    address = [] if cluster is None else ["--engine-option", f"address=127.0.0.1:{cluster.port}"]
    *base, _, _ = command(folder)
    return subprocess.Popen(
        [*base, "--engine", "ray", *address],
        env=None if cluster is None else cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_killed_driver_and_two_at_once_lose_nothing_and_train_nothing_twice(
    cluster: Cluster, undisturbed: Path, tmp_path: Path, drivers: list["subprocess.Popen[str]"]
):
    root = tmp_path / "store"
    drivers.append(first := driver(tmp_path, cluster))
    holder = training(root)
    first.kill()
    first.wait()
    wait_until(lambda: not alive(holder))
    before = records(root)
    drivers += (both := [driver(tmp_path, cluster) for _ in range(2)])
    said = [each.communicate(timeout=PATIENCE)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert end(root) == end(undisturbed)
    assert set(stored(root).values()) == {1}
    assert before.items() <= records(root).items()
    did = [name for each in said for name in re.findall(r"^(\S+): done;", each, flags=re.MULTILINE)]
    assert sorted(did) == sorted(set(did))
    assert len(did) == 5 - len(before)
    assert not list((root / "work").iterdir())


def test_a_lost_node_costs_only_what_it_was_doing(
    cluster: Cluster, undisturbed: Path, tmp_path: Path, drivers: list["subprocess.Popen[str]"]
):
    root = tmp_path / "store"
    drivers.append(only := driver(tmp_path, cluster))
    holder = training(root)
    (node,) = (each for each in cluster.nodes if each.pid == os.getsid(holder))
    cluster.lose(node)
    said, _ = only.communicate(timeout=PATIENCE)
    cluster.add()
    assert only.returncode == 0, said
    assert said.count("it begins again where it stopped") == 1, said
    assert end(root) == end(undisturbed)
    assert set(stored(root).values()) == {1}


def test_a_driver_that_is_killed_takes_its_own_cluster_with_it(
    undisturbed: Path, tmp_path: Path, drivers: list["subprocess.Popen[str]"]
):
    root = tmp_path / "store"
    drivers.append(only := driver(tmp_path, None))
    training(root)
    only.kill()
    only.wait()
    wait_until(lambda: not session(only.pid))
    done_all(planned(), root)
    assert end(root) == end(undisturbed)
    assert set(stored(root).values()) == {1}


@pytest.mark.parametrize("address", ["nonsense", "ray-nowhere:x"])
def test_a_cluster_that_cannot_be_joined_is_told(address: str):
    with pytest.raises(ConfigError, match="a cluster that this process may join"):
        RayEngine(address=address)


def training(root: Path) -> int:
    """Wait until a worker has saved a checkpoint of a phase, and return its process."""
    wait_until(lambda: bool(list(root.glob("work/*/last.json"))))
    (last, *_) = root.glob("work/*/last.json")
    return json.loads((root / "locks" / f"phase-{last.parent.name}" / "lock").read_text())["pid"]


def records(root: Path) -> dict[str, bytes]:
    """Return the records of finished phases."""
    return {path.parent.name: path.read_bytes() for path in root.glob(f"phases/*/{RECORD}")}


def session(leader: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = path.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(own) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def alive(process: int) -> bool:
    """Tell whether a process has not ended."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end_session(leader: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Kill a process and all that it started, and wait until they are gone."""
    deadline = time.monotonic() + 30
    while left := session(leader.pid):
        assert time.monotonic() < deadline, left
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
    leader.wait()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait a while until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
