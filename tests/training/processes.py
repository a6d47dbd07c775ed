"""Starts torchrun, waits for what it does rather than for a time, and ends all of its processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "together.py"
STANDSTILL = 600.0
"""Seconds without a new file after which processes are taken to hang: a loaded machine is slow, but not still."""


@dataclass(frozen=True)
class Processes:
    """torchrun and its workers, one process group; what they say is in a file, so that none waits for a reader."""

    torchrun: "subprocess.Popen[bytes]"
    folder: Path
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Wait until something holds; fails with all that was said where nothing moves on any more."""
        seen, since = list[str](), time.monotonic()
        while True:
            over = self.torchrun.poll() is not None
            if done():
                return
            if over:
                pytest.fail(f"ended with status {self.torchrun.returncode}\n{self.said}")
            # Checkpoints are named by their steps; what vanishes meanwhile is no error to os.walk.
            files = sorted(str(Path(place, name)) for place, _, names in os.walk(self.folder) for name in names)
            if files != seen:
                seen, since = files, time.monotonic()
            if time.monotonic() - since > STANDSTILL:
                pytest.fail(f"nothing new in {STANDSTILL:g} s\n{self.said}")
            time.sleep(0.2)

    def ended(self) -> int:
        """Wait for the end, and return torchrun's status."""
        self.wait_for(lambda: self.torchrun.poll() is not None)
        return self.torchrun.returncode

    def stop(self) -> None:
        """Send SIGTERM to every process, as schedulers do: workers hear of it twice, from torchrun too."""
        os.killpg(self.torchrun.pid, signal.SIGTERM)


@contextmanager
def started(folder: Path, arguments: Sequence[str], count: int = 2) -> Generator[Processes]:
    """Start so many processes of a Python file by torchrun; none is left when the test ends."""
    log = folder / "said.txt"
    with log.open("wb") as output:
        torchrun = subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"),
                *arguments,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Processes(torchrun, folder, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(torchrun.pid, signal.SIGKILL)
        torchrun.wait()


@contextmanager
def together(
    cases: Mapping[str, Any], folder: Path, count: int = 2, *, stop_after: int | None = None
) -> Generator[Processes]:
    """Start the training of recipes, one after the other, by so many processes."""
    listed = folder / "cases.json"
    listed.write_text(json.dumps(cases))
    last = () if stop_after is None else (str(stop_after),)
    with started(folder, (str(SCRIPT), str(listed), str(folder), *last), count) as processes:
        yield processes


def trained_together(cases: Mapping[str, Any], folder: Path, count: int = 2, *, stop_after: int | None = None) -> None:
    """Train recipes by so many processes, or begin to."""
    with together(cases, folder, count, stop_after=stop_after) as processes:
        assert processes.ended() == 0, processes.said
