"""How are tasks run on this machine? Each in a process of its own, with its share of the cores or of a GPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gossamer.errors import ConfigError
from gossamer.runs import atomic
from gossamer.sweep.engine import Ended
from gossamer.sweep.tasks import Task
from gossamer.sweep.work import FAILED, write_task

PATIENCE = 60.0
"""Seconds in which a task that is asked to end may save its state."""
_TOLD = 2000


@dataclass(kw_only=True)
class LocalEngine:
    """Processes on this machine.

    slots: how many at a time; each gets cores / slots threads. gpus: the devices that they share, slots / len(gpus) on
    each; none: they see what this process sees. folder: where tasks and what they print lie.
    """

    slots: int
    folder: Path
    gpus: Sequence[str] = ()
    _running: dict[str, "_Process"] = field(default_factory=dict[str, "_Process"])

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ConfigError("--slots", expected="at least 1", got=self.slots, remedy="leave it out")
        atomic.make_directory(self.folder)

    def submit(self, task: Task) -> "_Process":
        """Start a process for a task, in the slot that is free."""
        self._running = {name: each for name, each in self._running.items() if each.process.poll() is None}
        slot = min(set(range(self.slots)) - {each.slot for each in self._running.values()})
        path, log = write_task(task, self.folder), self.folder / f"{task.id}.log"
        with atomic.refusals_told(log), log.open("ab") as output:
            before = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "gossamer.sweep.work", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(slot),
                # A Ctrl-C at the terminal reaches the driver alone, which asks its workers to end.
                start_new_session=True,
            )
        self._running[task.id] = started = _Process(process=process, task=path, log=log, before=before, slot=slot)
        return started

    def stop(self) -> None:
        """Ask all processes to save a checkpoint and end; what does not in a minute is killed."""
        running = [each.process for each in self._running.values() if each.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _environment(self, slot: int) -> Mapping[str, str]:
        threads = max(1, cores() // self.slots)
        device = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        return {**os.environ, "OMP_NUM_THREADS": str(threads), **device}


@dataclass(frozen=True, kw_only=True)
class _Process:
    process: "subprocess.Popen[bytes]"
    task: Path
    log: Path
    before: int
    slot: int

    def ended(self) -> Ended | None:
        """Return how the process ended, None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self.task.unlink(missing_ok=True)
        own = self.log.read_bytes()[self.before :]
        told = own.decode(errors="replace")[-_TOLD:].strip().splitlines()
        last = told[-1] if told else "it said nothing"
        if code == 0:
            return Ended(ok=True, message=last)
        if code == FAILED:
            return Ended(ok=False, message=f"{last} (all of it: {self.log})")
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return Ended(ok=False, message=f"{how}: {last} (all of it: {self.log})", again=True)

    def stop(self) -> None:
        """Ask the process to save a checkpoint and end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
