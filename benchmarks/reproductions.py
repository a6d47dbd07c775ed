"""How long do all published tables and figures take at the smoke scale? In pieces; stopped, the same command goes on.

A piece is one `gossamer reproduce all`, with its start, its plan and its printing. What each took is kept in the store,
as far as it came: killed, ten seconds of it are lost. The result is written by the piece after which nothing is left.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import record
from gossamer.cli.reproduce import LEFT
from gossamer.runs import atomic
from gossamer.sweep.store import Store

GOAL_MINUTES = 150.0
PIECES = "pieces.jsonl"
TICK = 10.0
"""Seconds after which what a piece took so far is kept."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One command. slots: tasks at a time; before, after: tasks done; status: it ended with, None: it did not."""

    began: str
    slots: int
    before: int
    after: int
    seconds: float = 0.0
    status: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one piece; where nothing is left, write results/reproductions-smoke.json. Returns how the piece ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="where runs lie, and what pieces took")
    parser.add_argument("--minutes", type=float, help="end the piece after so long, with status 75")
    parser.add_argument("--slots", type=int, default=record.cores(), help="tasks at a time (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    options.store.mkdir(parents=True, exist_ok=True)
    load, kept = os.getloadavg(), options.store / PIECES
    ended = run(command(options.store, options.slots, options.minutes), kept, options.store, options.slots)
    if ended.status == 0:
        print(record.write(result(pieces(kept), Store(str(options.store))), options.results, load=load))
    return 1 if ended.status is None else ended.status


def command(store: Path, slots: int, minutes: float | None) -> list[str]:
    """Return the words that make a piece; tables of all entries lie in the store afterwards."""
    limit = [] if minutes is None else ["--minutes", f"{minutes:g}"]
    words = ["reproduce", "all", "--scale", "smoke", "--store", str(store), "--slots", str(slots), *limit]
    return [sys.executable, "-m", "gossamer", *words, "-o", str(store / "tables")]


def run(words: Sequence[str], kept: Path, store: Path, slots: int) -> Piece:
    """Run a command to its end, keep what it took beside what others did, and return it.

    SIGTERM and Ctrl-C are passed on to it as SIGTERM, on which it saves its state; the status is then 128 and more.
    """
    earlier, done = pieces(kept), tasks_done(store)
    piece = Piece(began=datetime.now(UTC).isoformat(timespec="seconds"), slots=slots, before=done, after=done)
    start = time.monotonic()
    # A Ctrl-C at the terminal reaches this process alone, which tells the other once.
    child = subprocess.Popen(list(words), start_new_session=True)
    with _passed_on(child) as received:
        while piece.status is None:
            with suppress(subprocess.TimeoutExpired):
                piece = replace(piece, status=child.wait(TICK))
            piece = replace(piece, seconds=time.monotonic() - start, after=tasks_done(store))
            _keep([*earlier, piece], kept)
    if received:
        piece = replace(piece, status=128 + received[0])
        _keep([*earlier, piece], kept)
    return piece


def pieces(kept: Path) -> list[Piece]:
    """Return all pieces that were begun, in order."""
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    return [Piece(**json.loads(line)) for line in lines]


def tasks_done(store: Path) -> int:
    """Return how many phases, runs and protocols a store holds that are done."""
    standings = Store(str(store)).standings()
    return len(list(store.glob("phases/*/record.json"))) + sum(each.get("done", False) for each in standings)


def took(store: Store) -> Mapping[str, list[float]]:
    """Return the seconds of every task in a store, by what it does; of protocols, of the attempt that finished."""
    phases = [found.seconds for key in store.keys() if (found := store.find(key)) is not None]  # noqa: SIM118
    standings = [each for each in store.standings() if each.get("done")]
    runs = [each["evaluations"] for each in standings if "evaluations" in each]
    return {
        "phases trained": phases,
        "runs evaluated": [sum(evaluation["seconds"] for evaluation in each) for each in runs],
        "protocols measured": [each["seconds"] for each in standings if "seconds" in each],
    }


def result(made: Sequence[Piece], store: Store) -> record.Result:
    """Return what pieces took together, and the tasks in their store."""
    tasks = took(store)
    slots = " and ".join(sorted({str(piece.slots) for piece in made}))
    return record.Result(
        name="reproductions-smoke",
        title="Published tables and figures, rebuilt at the smoke scale",
        rounds=1,
        claims=[
            record.Claim(
                what=f"all entries at the smoke scale, {slots} tasks at a time: wall time of all pieces",
                measured=sum(piece.seconds for piece in made) / 60,
                unit="min",
                goal=GOAL_MINUTES,
                sense="at most",
            ),
            record.Claim(
                what="their phases, evaluations and protocols: seconds of all tasks together",
                measured=sum(map(sum, tasks.values())),
                unit="s",
            ),
        ],
        tables=[
            record.Table(
                caption="Pieces",
                columns=["Piece", "Minutes", "Tasks at a time", "Tasks done before", "after", "Ended with"],
                rows=[
                    [place, piece.seconds / 60, piece.slots, piece.before, piece.after, _told(piece)]
                    for place, piece in enumerate(made, start=1)
                ],
            ),
            record.Table(
                caption="Tasks in the store",
                columns=["What", "Number", "Minutes"],
                rows=[[what, len(seconds), sum(seconds) / 60] for what, seconds in tasks.items()],
            ),
        ],
        details={"pieces": [asdict(piece) for piece in made]},
        threads=max(1, record.cores() // made[-1].slots),
    )


def _told(piece: Piece) -> str:
    """Return how a piece ended, in words where a status has them."""
    if piece.status is None:
        return "killed"
    return {0: "nothing left", LEFT: "minutes over"}.get(piece.status, f"status {piece.status}")


def _keep(found: Sequence[Piece], kept: Path) -> None:
    atomic.write_text(kept, "".join(f"{json.dumps(asdict(piece))}\n" for piece in found))


@contextmanager
def _passed_on(child: "subprocess.Popen[bytes]") -> Generator[list[int]]:
    """Pass signals on to a process that end this one else; gives the numbers of those that came."""
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        child.terminate()

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


if __name__ == "__main__":
    sys.exit(main())
