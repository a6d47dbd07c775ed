"""How do several processes of one machine evaluate together? One shard each; a killed one goes on where it stopped."""

import multiprocessing
import queue
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

import torch

from gossamer.errors import ConfigError, GossamerError, RunError
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.shards import Shard, merge
from gossamer.evaluation.standing import Progress, Standing

Work: TypeAlias = Callable[[Shard, Progress], Evaluation]
"""Evaluates one shard; sent to another process, so a module's function, or a partial of one."""

POLL_SECONDS = 0.5


def evaluate_in_processes(work: Work, count: int, progress: Progress | None = None) -> Evaluation:
    """Return the merged evaluation of `count` processes, which share out this process's threads.

    Raises ConfigError for fewer than one process, and RunError where one of them fails: what the others have done
    is kept where `work` keeps partial results.
    """
    if count < 1:
        raise ConfigError("workers", expected="a whole number >= 1", got=count, remedy="write 2 on two cores")
    if count == 1:
        return work(Shard(), progress or _ignore)
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    threads = max(1, torch.get_num_threads() // count)
    shards = [Shard(rank, count) for rank in range(count)]
    processes = [context.Process(target=_run, args=(work, shard, threads, told), daemon=True) for shard in shards]
    for process in processes:
        process.start()
    try:
        return merge(_collect(processes, told, progress or _ignore))
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _run(work: Work, shard: Shard, threads: int, told: Any) -> None:
    # A terminal's Ctrl-C reaches every process; the first one hears it and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        told.put((shard.rank, work(shard, lambda standing: told.put((shard.rank, standing)))))
    except GossamerError as error:
        told.put((shard.rank, (type(error), error.subject, error.expected, str(error.got), error.remedy)))


def _collect(processes: Sequence[BaseProcess], told: Any, progress: Progress) -> list[Evaluation]:
    done: dict[int, Evaluation] = {}
    standings: dict[int, Standing] = {}
    while len(done) < len(processes):
        try:
            rank, message = told.get(timeout=POLL_SECONDS)
        except queue.Empty:
            _check_alive(processes, done)
            continue
        match message:
            case Evaluation():
                done[rank] = message
            case Standing():
                standings[rank] = message
                progress(_together(message, list(standings.values())))
            case _:
                kind, subject, expected, got, remedy = message
                raise kind(subject, expected=expected, got=got, remedy=remedy)
    return [done[rank] for rank in sorted(done)]


def _together(latest: Standing, standings: list[Standing]) -> Standing:
    """Return the standing of all shards that are at the same attack as the one that spoke last."""
    same = [each for each in standings if each.what == latest.what]
    left = [each.seconds_left for each in same if each.seconds_left is not None]
    return replace(
        latest,
        done=sum(each.done for each in same),
        total=sum(each.total for each in same),
        robust=sum(each.robust for each in same),
        samples=sum(each.samples for each in same),
        seconds_left=max(left) if left else None,
    )


def _check_alive(processes: Sequence[BaseProcess], done: dict[int, Evaluation]) -> None:
    for rank, process in enumerate(processes):
        if rank not in done and not process.is_alive():
            raise RunError(
                f"worker {rank} of {len(processes)}",
                expected="a process that evaluates its shard",
                got=f"one that ended with status {process.exitcode}",
                remedy="run the same command again: every worker goes on from its partial results",
            )


def _ignore(standing: Standing) -> None:
    del standing
