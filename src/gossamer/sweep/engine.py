"""What does a sweep ask of whoever runs its tasks? Slots, a way to hand one over, and a way to stop them all."""

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gossamer.errors import GossamerError, RunError
from gossamer.sweep.files import StoreError
from gossamer.sweep.tasks import Task, perform
from gossamer.training.interruption import Interrupted


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a task ended. message: what became of it, or what it said before it failed; again: whether it merely died."""

    ok: bool
    message: str
    again: bool = False


class RefusedError(RunError):
    """A task that was not taken now, and may be later: a queue is full, say."""


class Handle(Protocol):
    """A task that was handed over."""

    def ended(self) -> Ended | None:
        """Return how it ended, None while it has not."""
        ...

    def stop(self) -> None:
        """Ask it to save its state and end; returns at once."""
        ...


class Engine(Protocol):
    """Runs tasks somewhere. slots: how many it takes at a time."""

    @property
    def slots(self) -> int:
        """How many tasks it takes at a time."""
        ...

    def submit(self, task: Task) -> Handle:
        """Hand a task over; raises RefusedError where it is not taken now, RunError where it never is."""
        ...

    def stop(self) -> None:
        """Ask all that runs to save its state and end, and wait for that a while."""
        ...


def attempt(task: Task) -> Ended:
    """Do a task in this process, and return how it ended; what a worker calls, wherever it is."""
    # Of a folder that this machine does not have, paths are told as missing by whoever reads them.
    there = contextlib.chdir(task.where) if Path(task.where).is_dir() else contextlib.nullcontext()
    try:
        with there:
            return Ended(ok=True, message=perform(task))
    except Interrupted as error:
        return Ended(ok=False, message=str(error), again=True)
    except StoreError as error:
        return Ended(ok=False, message=str(error), again=True)
    except GossamerError as error:
        return Ended(ok=False, message=str(error))
    # Whatever a user's code raises would be raised again.
    except Exception as error:
        traceback.print_exc()
        return Ended(ok=False, message=f"{type(error).__name__}: {error}")
