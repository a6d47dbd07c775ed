"""Who may write this run? One process at a time, by a lock that the kernel releases when it dies."""

import fcntl
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager

from gossamer.errors import RunError
from gossamer.runs import atomic
from gossamer.runs.layout import RunFolder


@contextmanager
def writer(run: RunFolder) -> Generator[None]:
    """Hold the run's lock; raises RunError at once where another process holds it."""
    with attempt(run) as held:
        if not held:
            raise RunError(
                f"run folder {run.path}",
                expected="a run that no process writes",
                got=f"another process ({_holder(run)}) writes this run",
                remedy="wait for it or stop it, or name another folder",
            )
        yield


@contextmanager
def attempt(run: RunFolder) -> Generator[bool]:
    """Hold the run's lock unless another process does, and tell which: for those who would rather wait than fail."""
    with atomic.refusals_told(run.lock):
        descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _acquired(run, descriptor)
    finally:
        # The file stays: a lock on an unlinked file would exclude nobody who comes after.
        os.close(descriptor)


def holder(run: RunFolder) -> str | None:
    """Return who writes the run, as "pid 12 on host", None where nobody does; nothing is written.

    Asking takes the free lock for an instant, in which a writer that begins would be refused.
    """
    try:
        descriptor = os.open(run.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(run)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _acquired(run: RunFolder, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    with atomic.refusals_told(run.lock):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    return True


def _holder(run: RunFolder) -> str:
    try:
        holder = json.loads(run.lock.read_bytes())
        return f"pid {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "pid not yet written"
