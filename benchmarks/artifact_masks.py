"""What do masks that are not uniform leave of a C artifact's speed? Budgets of published methods, beside work ratios.

Each layer keeps as many weights as a budget gives it, or, in the rows "BCS", as Ozdenizci and Legenstein (ICML 2021,
supplement, tables 1 to 3) publish for its block; which ones is random, as speed depends on how many there are and not
on which; shipping.py times masks that were trained. Work ratio: multiply-adds of the dense network
over those of kept weights; computed: over those that are left without channels that no logit needs. Share: of the
multiply-adds a second that the fastest dense engine reaches, by those that are computed.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import record
from artifact_speed import IMAGE, PACKAGES, SUBJECTS, artifact, network, plan, timed
from gossamer.deploy.bench import counts_of
from gossamer.deploy.bench_record import Timing
from gossamer.deploy.contestants import Contestant
from gossamer.models import build
from gossamer.sparsity.budgets import BudgetSpec
from masks import BCS, BCS_OPTIONS, divided, published, thin

ENGINES = ("torch", "torch-compile", "onnxruntime", "openvino")
DENSITIES = (0.1, 0.05, 0.01)
BUDGETS: Mapping[str, BudgetSpec] = {
    "adaptive, p 0.5": {"name": "adaptive", "p": 0.5},
    "adaptive, p 0.1": {"name": "adaptive", "p": 0.1},
    "IGQ": "igq",
    "ERK": "erk",
}
GOALS = ((30.0, 0.25), (8.0, 0.2))
"""From a work ratio on, the share of the dense engine's multiply-adds a second."""


@dataclass(frozen=True, kw_only=True)
class Masked:
    """One masked network. work_ratio, computed: of its multiply-adds, all and without dead channels; path: its file."""

    mask: str
    density: float
    work_ratio: float
    computed: float
    path: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write results/artifact-masks-NETWORK.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=("resnet18", "vgg16", "wideresnet28"), default=("resnet18",))
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 16))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    for name in options.networks:
        load = os.getloadavg()
        with tempfile.TemporaryDirectory() as folder:
            masked, contestants = subjects(name, Path(folder), options.engines)
            timings = [
                timing
                for batch in options.batches
                for timing in timed(contestants, plan(SUBJECTS[name], batch, options.threads, options.rounds)).timings
            ]
        print(record.write(result(name, masked, timings), options.results, load=load), flush=True)


def subjects(name: str, folder: Path, engines: Sequence[str]) -> tuple[list[Masked], list[Contestant]]:
    """Return the masked networks as artifacts, and the engines on the dense one."""
    masked: list[Masked] = []
    contestants = [Contestant(name=engine, kind="engine", network=network(name, 1.0)) for engine in engines]
    for mask, density, model in _networks(name):
        path = folder / f"mask_{len(masked)}.c"
        contestants.append(artifact(model, path))
        counts = counts_of(model, torch.rand(1, *IMAGE))
        assert counts is not None
        assert counts.work_ratio is not None
        assert counts.computed is not None
        computed = counts.dense.multiplications / counts.computed.multiplications
        masked.append(Masked(mask=mask, density=density, work_ratio=counts.work_ratio, computed=computed, path=path))
    return masked, contestants


def _networks(name: str) -> list[tuple[str, float, nn.Module]]:
    found: list[tuple[str, float, nn.Module]] = []
    for density in DENSITIES:
        for mask, spec in BUDGETS.items():
            model = _fresh(name)
            thin(model, divided(model, spec, density))
            found.append((mask, density, model))
        if counts := BCS[name].get(density):
            model = _fresh(name, **BCS_OPTIONS.get(name, {}))
            thin(model, published(model, counts))
            found.append(("BCS, as published", density, model))
    return found


def _fresh(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build(name, **{**SUBJECTS[name].options, **options}).eval()


def result(name: str, masked: Sequence[Masked], timings: Sequence[Timing]) -> record.Result:
    """Return the shares of the dense engine's work against their goals, and all speedups."""
    by_file = {each.path.name: each for each in masked}
    own = [timing for timing in timings if timing.contestant in by_file]
    return record.Result(
        name=f"artifact-masks-{name}",
        title=f"C artifact of {name} under masks that are not uniform",
        rounds=len(timings[0].rounds),
        claims=[claim for timing in own for claim in _claims(name, by_file[timing.contestant], timing)],
        tables=[_table(by_file, own)],
        details={
            "masks": [{**vars(each), "path": each.path.name} for each in masked],
            "timings": [dict(vars(timing)) for timing in timings],
        },
        packages=PACKAGES,
    )


def _claims(name: str, masked: Masked, timing: Timing) -> list[record.Claim]:
    goal = next((share for ratio, share in GOALS if masked.work_ratio >= ratio), None)
    if goal is None or timing.speedup is None:
        return []
    where = f"batch {timing.batch}, {timing.threads} threads"
    return [
        record.Claim(
            what=f"{name}, {masked.mask} at {masked.density:.0%}, work ratio {masked.work_ratio:.1f}, {where}: share",
            measured=round(timing.speedup / masked.computed, 3),
            goal=goal,
        )
    ]


def _table(by_file: Mapping[str, Masked], timings: Sequence[Timing]) -> record.Table:
    settings = list(dict.fromkeys((timing.threads, timing.batch) for timing in timings))
    by_key = {(each.contestant, each.threads, each.batch): each for each in timings}
    rows: list[list[record.Cell]] = [
        [
            masked.mask,
            f"{masked.density:.0%}",
            round(masked.work_ratio, 1),
            round(masked.computed, 1),
            *(_cell(masked, by_key[file, *setting]) for setting in settings),
        ]
        for file, masked in by_file.items()
    ]
    return record.Table(
        caption="Speed against the fastest dense engine of the column, median over rounds; in brackets the share",
        columns=[
            "mask",
            "density",
            "work ratio",
            "computed",
            *(f"{threads} threads, {batch} images" for threads, batch in settings),
        ],
        rows=rows,
    )


def _cell(masked: Masked, timing: Timing) -> str:
    speedup = timing.speedup or 0.0
    return f"{speedup:.2f} ({speedup / masked.computed:.2f})"


if __name__ == "__main__":
    main()
