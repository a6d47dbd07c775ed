"""How are tasks run on a Ray cluster? As remote calls that Ray places, with fractions of GPUs and nodes that may go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gossamer.errors import ConfigError
from gossamer.sweep.engine import Ended, attempt
from gossamer.sweep.tasks import Task

PATIENCE = 60.0
"""Seconds in which tasks that are interrupted may save their state."""


@dataclass(kw_only=True)
class RayEngine:
    """A Ray cluster. address: of one that runs; None: one on this machine, started now and ended with this process.

    cpus, gpus: of each task; gpus may be a fraction. started: what `ray.init` is given beside, where one is started.
    The store has to be where every node reaches it: a shared folder or a URL. Raises ConfigError where Ray is not
    installed, the cluster cannot be joined, or it has not the room for one task.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    started: Mapping[str, Any] = field(default_factory=dict[str, Any])
    _calls: list[Any] = field(default_factory=list[Any], init=False)

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0:
            raise ConfigError(
                "--engine-option",
                expected="cpus above 0 and gpus, as numbers",
                got=f"cpus={self.cpus}, gpus={self.gpus}",
                remedy="write cpus=1",
            )
        self._ray = _imported()
        if not self._ray.is_initialized():
            # Without an address Ray would join whatever cluster the environment names.
            started = {"address": "local", "include_dashboard": False, **self.started}
            own = {"address": self.address} if self.address else started
            _join(self._ray, own)
        if self.slots < 1:
            raise ConfigError(
                "--engine ray",
                expected=f"a cluster with room for a task of {self.cpus:g} CPUs and {self.gpus:g} GPUs",
                got=str(self._ray.cluster_resources()),
                remedy="ask for less with --engine-option cpus=... and gpus=...",
            )

    @property
    def slots(self) -> int:
        """How many tasks the cluster has room for now; nodes may come and go."""
        have = self._ray.cluster_resources()
        room = have.get("CPU", 0.0) / self.cpus
        if self.gpus:
            room = min(room, have.get("GPU", 0.0) / self.gpus)
        return int(room + 1e-9)

    def submit(self, task: Task) -> "_Call":
        """Hand a task to the cluster."""
        # Ray would begin a task again by itself; the driver counts attempts, whoever runs them.
        remote = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(attempt)
        call = remote.options(name=task.id).remote(task)
        self._calls.append(call)
        return _Call(ray=self._ray, call=call)

    def stop(self) -> None:
        """Interrupt all tasks, which save a checkpoint and end."""
        if not self._calls:
            return
        for call in self._calls:
            self._ray.cancel(call, force=False)
        self._ray.wait(self._calls, num_returns=len(self._calls), timeout=PATIENCE)


@dataclass(frozen=True, kw_only=True)
class _Call:
    ray: Any
    call: Any

    def ended(self) -> Ended | None:
        """Return how the call ended, None while it has not."""
        ready, _ = self.ray.wait([self.call], timeout=0)
        if not ready:
            return None
        try:
            return self.ray.get(self.call)
        # The worker or its node is gone: what a task does wrong comes back as a value.
        except self.ray.exceptions.RayError as error:
            return Ended(ok=False, message=_told(self.ray, error), again=True)

    def stop(self) -> None:
        """Interrupt the call, which saves a checkpoint and ends."""
        self.ray.cancel(self.call, force=False)


def _join(ray: Any, own: Mapping[str, Any]) -> None:
    try:
        ray.init(log_to_driver=False, **own)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        cause = "" if error.__cause__ is None else f", {error.__cause__}"
        raise ConfigError(
            "--engine ray",
            expected="a cluster that this process may join",
            got=f"{error}{cause}",
            remedy="see its address, and set RAY_AUTH_MODE and RAY_AUTH_TOKEN here as where it was started",
        ) from error


def _told(ray: Any, error: Exception) -> str:
    """Return the line that says why: the last of a traceback that a worker sent, the first of what Ray found."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
    return f"{type(error).__name__}: {line}"


def _imported() -> Any:
    try:
        import ray  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (of an extra)
    except ImportError as error:
        raise ConfigError(
            "--engine ray", expected="Ray to be installed", got="no such package", remedy="pip install 'gossamer[ray]'"
        ) from error
    return ray
