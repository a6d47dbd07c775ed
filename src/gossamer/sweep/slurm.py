"""How are tasks run under SLURM? As jobs that submitit submits, each doing one task from a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gossamer.errors import ConfigError
from gossamer.runs import atomic
from gossamer.sweep.engine import Ended, RefusedError
from gossamer.sweep.tasks import Task
from gossamer.sweep.work import FAILED, main, write_task

DEFAULTS: Mapping[str, Any] = {"timeout_min": 24 * 60, "cpus_per_task": 4}


@dataclass(kw_only=True)
class SlurmEngine:
    """Jobs of a SLURM cluster. slots: queued or running at a time; options: of submitit, as slurm_partition.

    folder: on a file system that all nodes share; jobs leave what they print there. cluster: `local` runs jobs on this
    machine by the same code. Raises ConfigError where submitit is not installed or knows no such option.
    """

    slots: int
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cluster: str = "slurm"
    _jobs: list[Any] = field(default_factory=list[Any])

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ConfigError("--slots", expected="at least 1", got=self.slots, remedy="leave it out")
        submitit = _imported()
        atomic.make_directory(self.folder)
        try:
            self._executor = submitit.AutoExecutor(folder=str(self.folder / "%j"), cluster=self.cluster)
            self._executor.update_parameters(**{**DEFAULTS, **self.options})
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                "--engine slurm",
                expected="a cluster and options that submitit knows",
                got=str(error),
                remedy="see its README",
            ) from error

    def submit(self, task: Task) -> "_Job":
        """Submit a job for a task; raises RefusedError where the cluster takes no more now."""
        path = write_task(task, self.folder)
        try:
            job = self._executor.submit(main, [str(path)])
        # Whatever sbatch says, submitit raises errors of its own for it.
        except Exception as error:
            path.unlink(missing_ok=True)
            raise RefusedError(
                "--engine slurm", expected="a cluster that takes the job", got=_first(error), remedy="see its queue"
            ) from error
        self._jobs.append(job)
        return _Job(job=job, task=path)

    def stop(self) -> None:
        """Cancel all jobs; one that trains goes on from its last checkpoint when its task is begun again."""
        for job in self._jobs:
            if not job.done():
                job.cancel(check=False)


@dataclass(frozen=True, kw_only=True)
class _Job:
    job: Any
    task: Path

    def ended(self) -> Ended | None:
        """Return how the job ended, None while it has not."""
        if not self.job.done():
            return None
        self.task.unlink(missing_ok=True)
        try:
            code = self.job.result()
        # A job that was killed, timed out or lost leaves no result: submitit says so in exceptions of its own.
        except Exception as error:
            return Ended(ok=False, message=f"job {self.job.job_id}: {_first(error)}", again=True)
        told = f"job {self.job.job_id}, see {self.job.paths.stderr}"
        return Ended(ok=code == 0, message=told if code else "done", again=code not in (0, FAILED))

    def stop(self) -> None:
        """Cancel the job."""
        if not self.job.done():
            self.job.cancel(check=False)


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _imported() -> Any:
    try:
        import submitit  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "--engine slurm",
            expected="submitit to be installed",
            got="no such package",
            remedy="pip install 'gossamer[slurm]'",
        ) from error
    return submitit
