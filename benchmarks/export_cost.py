"""What does it cost to make a C artifact? Seconds of the export, and of the compiler, and the compiler's memory."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import record
from gossamer.deploy.csource.compile import OPTIMISE
from gossamer.deploy.export import export
from gossamer.kernels.build import compiler, native
from gossamer.models import build
from masks import same, thin

NETWORKS = ("resnet18", "resnet50")
SECONDS, GIGABYTES = 60.0, 0.5
# A process counts as its own what its parent held when it was forked: a small one starts the compiler.
WATCHED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One network. seconds: of export and of compilation; gigabytes: the compiler's most; source, library: bytes."""

    network: str
    density: float
    export_seconds: float
    compile_seconds: float
    gigabytes: float
    source: int
    library: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write results/export-cost.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    costs = [measure(name, options.density) for name in options.networks]
    print(record.write(result(costs), options.results, load=load))


def measure(name: str, density: float) -> Cost:
    """Return what one network costs, its weights random and uniformly thinned."""
    torch.manual_seed(0)
    model = build(name).eval()
    thin(model, same(density))
    with tempfile.TemporaryDirectory() as folder:
        path, made = Path(folder) / "network.c", Path(folder) / "network.so"
        started = time.perf_counter()
        export(model, torch.rand(1, 3, 32, 32), "c", path)
        exported = time.perf_counter()
        command = [*compiler(), *OPTIMISE, native(), "-shared", "-fPIC", str(path), "-o", str(made)]
        said = subprocess.run(
            [sys.executable, "-I", "-c", WATCHED, *command], cwd=folder, check=True, capture_output=True, text=True
        )
        return Cost(
            network=name,
            density=density,
            export_seconds=exported - started,
            compile_seconds=time.perf_counter() - exported,
            gigabytes=1024 * int(said.stdout) / 1e9,
            source=path.stat().st_size,
            library=made.stat().st_size,
        )


def result(costs: Sequence[Cost]) -> record.Result:
    """Return the goals of ResNet-50 and every network's costs."""
    judged = [cost for cost in costs if cost.network == "resnet50"]
    return record.Result(
        name="export-cost",
        title="What making a C artifact costs",
        rounds=1,
        claims=[
            record.Claim(
                what=f"{cost.network} at {cost.density:.0%}, {what}",
                measured=value,
                unit=unit,
                goal=goal,
                sense="at most",
            )
            for cost in judged
            for what, value, unit, goal in (
                ("export and compilation", round(cost.export_seconds + cost.compile_seconds, 1), "s", SECONDS),
                ("memory of the compiler", round(cost.gigabytes, 2), "GB", GIGABYTES),
            )
        ],
        tables=[
            record.Table(
                caption="Export to C and compilation with -O3 for this machine",
                columns=["network", "density", "export, s", "compiler, s", "compiler, GB", "source, MB", "library, MB"],
                rows=[
                    [
                        cost.network,
                        f"{cost.density:.0%}",
                        round(cost.export_seconds, 1),
                        round(cost.compile_seconds, 1),
                        round(cost.gigabytes, 2),
                        round(cost.source / 1e6, 1),
                        round(cost.library / 1e6, 1),
                    ]
                    for cost in costs
                ],
            )
        ],
    )


if __name__ == "__main__":
    main()
