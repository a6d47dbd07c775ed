"""How long does a contestant take to start, and how much memory does it hold? Asked in a new process."""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from gossamer.deploy.contestants import Contestant
from gossamer.deploy.device import forget_memory_peak, memory_now, memory_peak
from gossamer.deploy.tracing import told
from gossamer.errors import GossamerError

PATIENCE = 600.0
"""Seconds after which a process that says nothing is given up."""


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """Seconds from opening to the first logits; bytes at the peak and before opening; failure: where it failed."""

    start_up: float | None = None
    peak: int | None = None
    before: int | None = None
    failure: str | None = None


def measure_fresh(contestant: Contestant, image: Tensor, threads: int) -> Fresh:
    """Return what a contestant's first forward costs a new process; image: (1, C, H, W), on the CPU or a GPU."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    work = (contestant, image.cpu().numpy(), str(image.device), threads, theirs)
    process = context.Process(target=_run, args=work, daemon=True)
    try:
        process.start()
    # Whatever a user's module holds that cannot be sent.
    except Exception as error:
        return Fresh(failure=f"{type(error).__name__}: {told(error)}")
    theirs.close()
    try:
        return ours.recv() if ours.poll(PATIENCE) else Fresh(failure=f"no answer in {PATIENCE:g} s")
    except EOFError:
        process.join()
        return Fresh(failure=f"the process ended with status {process.exitcode}")
    finally:
        process.terminate()
        process.join()


def _run(contestant: Contestant, image: object, device: str, threads: int, answer: Connection) -> None:
    torch.set_num_threads(threads)
    x = torch.as_tensor(image).to(device)
    # Importing torch needs more for a moment than it holds afterwards.
    forget_memory_peak()
    before = memory_now()
    started = time.perf_counter()
    try:
        with torch.no_grad():
            logits = contestant.open(x)(x)
            logits.cpu()
    except (GossamerError, RuntimeError, OSError, ValueError) as error:
        answer.send(Fresh(failure=f"{type(error).__name__}: {told(error)}"))
        return
    answer.send(Fresh(start_up=time.perf_counter() - started, peak=memory_peak(), before=before))
