"""What does a worker do? One task, read from a file, in a process of its own: `python -m gossamer.sweep.work TASK`."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from gossamer.runs import atomic, records
from gossamer.sweep.engine import attempt
from gossamer.sweep.tasks import Task

FAILED, STOPPED = 3, 143
"""Exit status of a task that failed and would fail again; of one that was asked to stop. Any other is a death."""


def write_task(task: Task, folder: Path) -> Path:
    """Write a task as JSON, atomically, and return its file.

    Under a name of its own: another driver may ask more of the same task, before its worker has read this.
    """
    path = folder / f"{task.id}.{secrets.token_hex(4)}.json"
    records.write(path, task)
    return path


def read_task(path: Path) -> Task:
    """Return the task in a file; raises RunError if it is missing or damaged."""
    return records.from_json(Task, atomic.read_json(path), subject=str(path))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the task in a file, and print what became of it."""
    (path,) = map(Path, sys.argv[1:] if arguments is None else arguments)
    ended = attempt(read_task(path))
    print(ended.message, flush=True)
    return 0 if ended.ok else STOPPED if ended.again else FAILED


if __name__ == "__main__":
    raise SystemExit(main())
