"""What did a set of runs reach? Run folders in; one benchmark record and every evaluation, metric and recipe out."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import record
from gossamer.runs import RunFolder, atomic, metrics

COLUMNS = (
    "run",
    "method",
    "density",
    "nonzero",
    "work ratio",
    "clean",
    "attack",
    "threat",
    "robust",
    "interval",
    "n",
    "training, min",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write results/NAME.json, and beside it in results/NAME/ what the numbers rest on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--title", required=True)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    rows = [row for path in options.runs for row in _rows(RunFolder.open(path))]
    result = record.Result(
        name=options.name,
        title=options.title,
        rounds=1,
        claims=_claims(options.runs),
        tables=[record.Table(caption="Accuracy clean and under attack", columns=COLUMNS, rows=rows)],
        details={"recipes": {path.name: yaml.safe_load((path / "recipe.yaml").read_text()) for path in options.runs}},
    )
    record.write(result, options.results)
    for path in options.runs:
        _keep(RunFolder.open(path), options.results / options.name / path.name)
    return 0


def _rows(run: RunFolder) -> list[list[record.Cell]]:
    recipe = yaml.safe_load(run.recipe.read_text())
    network = atomic.read_json(run.result("network"))
    minutes = round(sum(line["seconds"] for line in metrics.read(run)) / 60, 1)
    rows: list[list[record.Cell]] = []
    for evaluation in _evaluations(run):
        for outcome in evaluation["attacks"]:
            low, high = outcome["interval"]
            rows.append(
                [
                    run.name,
                    recipe["method"]["name"],
                    evaluation["density"],
                    evaluation["nonzero"],
                    round(network["work_ratio"], 2),
                    evaluation["clean_accuracy"],
                    outcome["attack"],
                    outcome["threat"],
                    outcome["robust_accuracy"],
                    f"[{low:.3f}, {high:.3f}]",
                    outcome["n"],
                    minutes,
                ]
            )
    return rows


def _claims(paths: Sequence[Path]) -> list[record.Claim]:
    claims: list[record.Claim] = []
    for path in paths:
        run = RunFolder.open(path)
        for evaluation in _evaluations(run):
            if evaluation["attack"] == "pgd-50-10":
                what = f"{run.name}: robust accuracy under PGD-50 x10, {evaluation['threat']}, n={evaluation['n']}"
                claims.append(record.Claim(what=what, measured=evaluation["robust_accuracy"]))
    return claims


def _evaluations(run: RunFolder) -> list[dict[str, Any]]:
    found = [atomic.read_json(path) for path in sorted(run.results.glob("*.json"))]
    return [each for each in found if str(each.get("schema", "")).startswith("gossamer/evaluation/")]


def _keep(run: RunFolder, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in (run.recipe, run.env, run.metrics, *sorted(run.results.glob("*.json"))):
        shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    raise SystemExit(main())
