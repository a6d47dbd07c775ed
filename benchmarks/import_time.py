"""How much does `import gossamer` cost beyond `import torch`? Fresh processes, alternating."""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

import record

GOAL_SECONDS = 0.3
PROGRAMS = {
    "torch": "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)",
    "gossamer": "import time; t = time.perf_counter(); import torch, gossamer; print(time.perf_counter() - t)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write results/import-time.json and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of processes (default 15)")
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    seconds = measure(options.rounds)
    extra = [both - alone for both, alone in zip(seconds["gossamer"], seconds["torch"], strict=True)]
    result = record.Result(
        name="import-time",
        title="Importing",
        rounds=options.rounds,
        claims=[
            record.Claim(
                what="`import gossamer` minus `import torch`, median",
                measured=statistics.median(extra),
                unit="s",
                goal=GOAL_SECONDS,
                sense="at most",
            )
        ],
        tables=[
            record.Table(
                caption="Seconds in a fresh process",
                columns=["Import", "Median", "Least", "Greatest"],
                rows=[
                    [name, *(record.spread(values)[key] for key in ("median", "min", "max"))]
                    for name, values in {**seconds, "difference in a round": extra}.items()
                ],
            )
        ],
        details={"seconds": seconds},
    )
    print(record.write(result, load=load))


def measure(rounds: int) -> dict[str, list[float]]:
    """Return seconds by program; which comes first changes from round to round, and a first pair is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for number in range(rounds + 1):
        order = list(PROGRAMS) if number % 2 else list(reversed(PROGRAMS))
        for name in order:
            taken = run(PROGRAMS[name])
            if number:
                seconds[name].append(taken)
    return seconds


def run(program: str) -> float:
    """Return what a program printed, from a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
