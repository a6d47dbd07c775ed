"""How fast is a C artifact? Networks at five densities beside the best dense engine of the machine, in turns.

Random weights; every convolution and linear layer keeps the same share of them, uniformly random, but the depth-wise
ones of MobileNetV2 and their like, which stay dense; there every output channel keeps one weight at least, as 1 % of
so few would leave paths without any, and logits that no image changes.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import record
from gossamer.data import from_tensors
from gossamer.deploy.bench import Plan, bench
from gossamer.deploy.bench_record import BenchRecord, Timing
from gossamer.deploy.contestants import ENGINES, Contestant, of_file
from gossamer.deploy.device import installed
from gossamer.deploy.export import export
from gossamer.models import build
from masks import same, thin

IMAGE = (3, 32, 32)
BATCHES = (1, 16, 64)
DENSITIES = (1.0, 0.5, 0.1, 0.05, 0.01)
PACKAGES = tuple(filter(installed, ("onnxruntime", "openvino")))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network. goals: speedups by density; alone: that at 1 % for one image; megamacs: multiply-adds, roughly.

    alive: every output channel keeps a weight.
    """

    options: Mapping[str, object]
    goals: Mapping[float, float]
    alone: float
    megamacs: int
    alive: bool = False


# Of all weights: what our own dense kernel has to reach.
_LARGE = {1.0: 0.4, 0.5: 0.7, 0.1: 2.0, 0.05: 4.0, 0.01: 10.0}
SUBJECTS: Mapping[str, Subject] = {
    "resnet18": Subject(options={}, goals={**_LARGE, 0.01: 12.0}, alone=8.0, megamacs=557),
    "resnet34": Subject(options={}, goals=_LARGE, alone=7.0, megamacs=1160),
    "vgg16": Subject(options={}, goals=_LARGE, alone=7.0, megamacs=314),
    "wideresnet28": Subject(options={"width": 4}, goals=_LARGE, alone=7.0, megamacs=846),
    "mobilenetv2": Subject(
        options={}, goals={1.0: 0.4, 0.5: 0.5, 0.1: 1.0, 0.05: 1.5, 0.01: 2.5}, alone=2.5, megamacs=95, alive=True
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks that are named, write results/artifact-speed-NETWORK.json of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=tuple(SUBJECTS), default=tuple(SUBJECTS))
    parser.add_argument("--engines", nargs="+", choices=tuple(ENGINES), default=tuple(ENGINES))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    for name in options.networks:
        load = os.getloadavg()
        with tempfile.TemporaryDirectory() as folder:
            found = [
                measure(name, Path(folder), options.engines, batch, options.threads, options.rounds)
                for batch in options.batches
            ]
        print(record.write(result(name, found), options.results, load=load), flush=True)


def measure(
    name: str, folder: Path, engines: Sequence[str], batch: int, threads: Sequence[int], rounds: int
) -> BenchRecord:
    """Return one bench of all contestants, on batches of one size."""
    dense = network(name, 1.0)
    contestants = [
        artifact(network(name, density), folder / f"{name}_{round(1000 * density)}.c") for density in DENSITIES
    ]
    contestants += [
        Contestant(name=engine, kind="engine", network=network(name, 0.01) if engine == "torch-csr" else dense)
        for engine in engines
    ]
    return timed(contestants, plan(SUBJECTS[name], batch, threads, rounds))


def plan(subject: Subject, batch: int, threads: Sequence[int], rounds: int) -> Plan:
    """Return as many repeats as a network and a batch have time for."""
    repeats = max(2, min(20, round(6000 / (subject.megamacs * batch))))
    return Plan(
        batches=(batch,), threads=threads, rounds=rounds, repeats=repeats, warm_up=1, loading=False, fresh=False
    )


def timed(contestants: Sequence[Contestant], plan: Plan) -> BenchRecord:
    """Return the times of contestants on random images."""
    pixels = torch.randint(0, 256, (64, *IMAGE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = from_tensors(pixels, torch.zeros(64, dtype=torch.int64), part="random")
    return bench(contestants, images, plan, network=None)


def network(name: str, density: float) -> nn.Module:
    """Return a network in eval mode of which every layer keeps so many of its weights, and depth-wise ones all."""
    torch.manual_seed(0)
    model = build(name, **SUBJECTS[name].options).eval()
    thin(model, same(density), alive=SUBJECTS[name].alive)
    return model


def artifact(model: nn.Module, path: Path) -> Contestant:
    """Return a network as a C artifact, written where it is not there yet."""
    if not path.exists():
        export(model, torch.rand(1, *IMAGE), "c", path)
    return of_file(path, trust=True, network=None)


def result(name: str, found: Sequence[BenchRecord]) -> record.Result:
    """Return the speedups against their goals, and every time."""
    timings = [timing for each in found for timing in each.timings]
    missing = {who: why for each in found for who, why in each.missing.items()}
    return record.Result(
        name=f"artifact-speed-{name}",
        title=f"C artifact of {name}, uniform masks, against the best dense engine",
        rounds=len(timings[0].rounds),
        claims=[claim for timing in timings for claim in _claims(name, timing)],
        tables=[_table(name, timings)],
        details={"missing": missing, "timings": [_plain(timing) for timing in timings]},
        packages=PACKAGES,
    )


def _claims(name: str, timing: Timing) -> list[record.Claim]:
    density = _density(timing.contestant)
    if density is None or timing.speedup is None:
        return []
    subject = SUBJECTS[name]
    goal = subject.alone if (timing.batch, density) == (1, 0.01) else subject.goals[density]
    return [
        record.Claim(
            what=f"{name}, {density:.0%} of the weights, batch {timing.batch}, {timing.threads} threads: speedup",
            measured=round(timing.speedup, 2),
            unit="x",
            goal=goal,
        )
    ]


def _density(contestant: str) -> float | None:
    stem, _, suffix = contestant.rpartition(".")
    return int(stem.rpartition("_")[2]) / 1000 if suffix == "c" else None


def _table(name: str, timings: Sequence[Timing]) -> record.Table:
    settings = list(dict.fromkeys((timing.threads, timing.batch) for timing in timings))
    names = list(dict.fromkeys(timing.contestant for timing in timings))
    by_key = {(each.contestant, each.threads, each.batch): each for each in timings}
    rows: list[list[record.Cell]] = []
    for contestant in names:
        density = _density(contestant)
        shown = contestant if density is None else f"C, {density:.0%}"
        own = [by_key.get((contestant, *setting)) for setting in settings]
        rows.append([shown, *(_cell(timing) for timing in own)])
    heads = [f"{threads} threads, {batch} images" for threads, batch in settings]
    return record.Table(
        caption=(
            f"{name}: milliseconds a batch, median; in brackets the speed against the fastest dense engine of the "
            "column, the median over rounds. torch-csr has 1 % of the weights; other engines compute them all."
        ),
        columns=["contestant", *heads],
        rows=rows,
    )


def _cell(timing: Timing | None) -> str:
    if timing is None:
        return ""
    return f"{1e3 * timing.median:.2f} ({timing.speedup:.2f})" if timing.speedup else f"{1e3 * timing.median:.2f}"


def _plain(timing: Timing) -> dict[str, Any]:
    return dict(vars(timing))


if __name__ == "__main__":
    main()
