"""How many times as fast are two processes of one thread as one, and do their verdicts agree?

Both attack the same first n test images of the same run, wholly, one after the other, each time as
`gossamer evaluate --workers` does: every process starts, opens the run and the data, and evaluates its shard. A robust
sample takes every step of the attack, so the shard with more of them ends last; on few samples that costs more than
starting.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import record
from gossamer.evaluation import evaluate, wilson
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.shards import Shard
from gossamer.evaluation.standing import Progress
from gossamer.evaluation.workers import evaluate_in_processes
from gossamer.recipe.open import open_run

GOAL = 1.8
ATTACKS = ("apgd-ce", "pgd-50-10")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What every process evaluates, in plain values that can be sent to it."""

    run: Path
    data_dir: Path | None
    attack: str
    n: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One evaluation. seconds: with start-up; evaluating: of the longest shard, without."""

    seconds: float
    evaluating: float
    robust: tuple[bool, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate by one process and by several, write results/sharding-NAME.json and print its path."""
    options = _options(arguments)
    load = os.getloadavg()
    subject = Subject(
        run=options.run, data_dir=options.data_dir, attack=options.attack, n=options.n, batch=options.batch
    )
    counts = (1, options.processes)
    timed: dict[int, list[Timed]] = {count: [] for count in counts}
    for turn in range(options.rounds):
        for count in counts if turn % 2 == 0 else counts[::-1]:
            timed[count].append(_timed(subject, count))
            print(f"{count} x 1 thread: {_described(timed[count][-1])}", flush=True)
    run = open_run(options.run, options.data_dir)
    print(record.write(_result(run.folder.name, str(run.threat), timed, options), load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder whose robust accuracy is between 30 and 60 %%")
    parser.add_argument("--data-dir", type=Path, help="where the data lie; by default $GOSSAMER_DATA")
    parser.add_argument("--attack", default=ATTACKS[0], choices=ATTACKS)
    parser.add_argument("--n", type=int, default=1000, help="the first n test images (default 1000)")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (default 32)")
    parser.add_argument("--processes", type=int, default=2, help="beside one (default 2); as many cores must be free")
    parser.add_argument("--rounds", type=int, default=1, help="the order changes every round (default 1)")
    return parser.parse_args(arguments)


def _timed(subject: Subject, count: int) -> Timed:
    # The threads of this process are what the others share out.
    torch.set_num_threads(count)
    began = time.perf_counter()
    made = evaluate_in_processes(partial(_evaluated, subject), count)
    seconds = time.perf_counter() - began
    return Timed(seconds=seconds, evaluating=made.seconds, robust=tuple(map(bool, made.attacks[0].robust)))


def _evaluated(subject: Subject, shard: Shard, told: Progress) -> Evaluation:
    run = open_run(subject.run, subject.data_dir)
    return evaluate(
        run.model().eval(),
        run.part("test"),
        subject.attack,
        threat=run.threat,
        n=subject.n,
        batch_size=subject.batch,
        device="cpu",
        progress=told,
        shard=shard,
    )


def _described(timed: Timed) -> str:
    robust = f"{sum(timed.robust)} of {len(timed.robust)} robust"
    return f"{robust}, {timed.seconds:.1f} s, {timed.evaluating:.1f} s of them without start-up"


def _result(name: str, threat: str, timed: dict[int, list[Timed]], options: argparse.Namespace) -> record.Result:
    one, several = timed[1], timed[options.processes]
    first = one[0].robust
    differ = max(_unlike(each.robust, first) for each in [*one, *several])
    who = f"{options.attack} by {options.processes} processes of one thread"
    return record.Result(
        name=f"sharding-{name}",
        title=f"An evaluation of {name} shared between {options.processes} processes",
        rounds=options.rounds,
        claims=[
            record.Claim(
                what=f"{who}: times as fast as by one, with start-up",
                measured=statistics.median(a.seconds / b.seconds for a, b in zip(one, several, strict=True)),
                unit="times",
                goal=GOAL,
            ),
            record.Claim(
                what=f"{who}: times as fast as by one, without start-up",
                measured=statistics.median(a.evaluating / b.evaluating for a, b in zip(one, several, strict=True)),
                unit="times",
            ),
            record.Claim(
                what=f"{who}: verdicts unlike those of one", measured=differ, unit="samples", goal=0, sense="at most"
            ),
        ],
        tables=[
            record.Table(
                caption=f"{options.attack}, {threat}, batch {options.batch}, one thread a process",
                columns=[
                    "processes",
                    "seconds",
                    "without start-up",
                    "robust accuracy",
                    "n",
                    "robust by shard",
                    "samples unlike the first",
                ],
                rows=[_row(count, each, first) for count, rounds in timed.items() for each in rounds],
            )
        ],
        details={"first": list(first)},
        threads=1,
    )


def _row(count: int, timed: Timed, first: Sequence[bool]) -> list[record.Cell]:
    right, n = sum(timed.robust), len(timed.robust)
    low, high = wilson(right, n)
    accuracy = f"{right / n:.3f} [{low:.3f}, {high:.3f}]"
    shards = " + ".join(str(sum(timed.robust[rank::count])) for rank in range(count))
    unlike = _unlike(timed.robust, first)
    return [count, round(timed.seconds, 1), round(timed.evaluating, 1), accuracy, n, shards, unlike]


def _unlike(robust: Sequence[bool], first: Sequence[bool]) -> int:
    return sum(a != b for a, b in zip(robust, first, strict=True))


if __name__ == "__main__":
    main()
