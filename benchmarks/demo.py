"""How long does the demo take, from an existing environment to its report, and what does it say?"""

import argparse
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import record
from gossamer.runs import RunFolder
from gossamer.runs.results import Evaluation, evaluation_files, read_evaluation

GOAL_SECONDS = 90.0
ROOT = Path(__file__).parent.parent
COMMAND = "make demo DEMO={out}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo once in an empty folder, write results/demo.json and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", default=COMMAND, help="the command; {out} is an empty folder (default: %(default)s)")
    parser.add_argument("--runs", type=Path, help="where its run folders lie (default: {out})")
    parser.add_argument("--goal", type=float, default=GOAL_SECONDS, help="seconds (default: %(default)s)")
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as out:
        seconds = run(options.demo.format(out=out))
        evaluations = collect(Path(out) if options.runs is None else options.runs)
    if not evaluations:
        raise SystemExit("the demo left no evaluation; name its run folders with --runs")
    result = record.Result(
        name="demo",
        title="The demo",
        rounds=1,
        claims=[
            record.Claim(
                what=f"`{options.demo}`, wall time", measured=seconds, unit="s", goal=options.goal, sense="at most"
            ),
            *accuracies(evaluations),
        ],
        tables=[
            record.Table(
                caption="What the demo reported",
                columns=["Run", "Density", "Clean accuracy", "Robust accuracy", "95 % from", "to", "Attack", "n"],
                rows=[row(name, evaluation) for name, evaluation in evaluations],
            )
        ],
    )
    print(record.write(result, load=load))


def run(command: str) -> float:
    """Return the wall time of a command in seconds, run in the repository's root."""
    began = time.monotonic()
    subprocess.run(shlex.split(command), check=True, cwd=ROOT)
    return time.monotonic() - began


def collect(folder: Path) -> list[tuple[str, Evaluation]]:
    """Return every evaluation of every run folder below a folder, by the run's name."""
    runs = [RunFolder(recipe.parent) for recipe in sorted(folder.rglob("recipe.yaml"))]
    return [(run.name, read_evaluation(path)) for run in runs for path in evaluation_files(run)]


def accuracies(evaluations: Sequence[tuple[str, Evaluation]]) -> list[record.Claim]:
    """Return what the demo is to show: a sparse network that stands, where a natural one falls."""
    judged = {name: evaluation for name, evaluation in evaluations if evaluation.attack == "pgd-50-10"}
    claims: list[record.Claim] = []
    for name, evaluation in judged.items():
        natural = name == "natural"
        under = f"PGD-50 x10, {evaluation.threat}, n={evaluation.n}"
        claims.append(record.Claim(what=f"{name}: clean accuracy", measured=evaluation.clean_accuracy, goal=0.97))
        claims.append(
            record.Claim(
                what=f"{name}: robust accuracy under {under}",
                measured=evaluation.robust_accuracy,
                goal=0.15 if natural else 0.75,
                sense="at most" if natural else "at least",
            )
        )
    return claims


def row(name: str, evaluation: Evaluation) -> list[record.Cell]:
    """Return one evaluation's headline."""
    return [
        name,
        evaluation.density,
        evaluation.clean_accuracy,
        evaluation.robust_accuracy,
        *evaluation.interval,
        f"{evaluation.attack}, {evaluation.threat}",
        evaluation.n,
    ]


if __name__ == "__main__":
    main()
