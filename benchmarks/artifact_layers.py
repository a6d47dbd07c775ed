"""Where does the time of a C artifact go? Every step beside what the caches allow, one thread, uniform masks.

A kept weight is a multiply-add for each cell of a map, and the sparse kernel loads each cell that it multiplies. So the
roof of a sparse layer is the rate at which cells come from the cache that holds what one tile reads; that of a dense
one, which uses a load for four output channels, is the rate of multiply-adds. Both are measured in the same process.
"""

import argparse
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

import record
from artifact_speed import IMAGE, SUBJECTS, network
from gossamer.deploy.capture import capture
from gossamer.deploy.csource import write_c
from gossamer.deploy.csource.compile import OPTIMISE
from gossamer.deploy.csource.constants import Layer, together
from gossamer.deploy.csource.emit import UNITS
from gossamer.deploy.csource.layout import Layout, place
from gossamer.deploy.csource.lowering import lower
from gossamer.deploy.csource.program import Program, Weighted
from gossamer.deploy.csource.tables import collect
from gossamer.deploy.simplify import simplify
from gossamer.kernels.build import compiler, native

PROGRAM = Path(__file__).with_name("layers.c")
PLANS: Mapping[str, int] = {"single": 1, "block": 8}
"""Plans, and of how many images each makes one pass."""

EDGES = (0.37, 0.24)
"""Densities just below those from which layers are computed densely, of maps and of single cells."""
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux tells the caches of a core."""
SMALL_CORE = (32 * 1024, 512 * 1024)
"""Bytes of the first and second cache of a core, where the machine does not tell its own."""

LEAST = 0.01
"""Share of a pass below which a layer is not judged."""
NOT_SLOWER = 1.05
"""Times the dense kernel's time, with room for what a busy machine adds."""
LONGEST = 1 << 26
"""Multiply-adds of vectors by which rates are measured."""
TURNS = 5
"""Of each program, among which the passes are divided."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step. seconds: of a pass; products: kept multiply-adds of it; cells: share of what is computed that is used.

    zeros: multiply-adds by weights that are zero; reads: bytes of the map that a tile reads at a time, of the lists
    that are read as one (None where nothing is weighted); dense: on the dense kernel.
    """

    name: str
    seconds: float
    products: int = 0
    zeros: int = 0
    cells: float = 1.0
    reads: int | None = None
    dense: bool = False


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One network under one plan. whole: seconds of a pass; rates: floats a second, by what limits them.

    caches: bytes of the first and second cache of a core.
    """

    density: float
    plan: str
    whole: float
    rates: Mapping[str, float]
    caches: tuple[int, int]
    steps: Sequence[Step]

    def roof(self, step: Step) -> float:
        """Return the multiply-adds a second that could be reached."""
        if step.dense or step.reads is None:
            return self.rates["compute"]
        first, second = self.caches
        level = "first" if step.reads <= first else "second" if step.reads <= second else "third"
        return min(self.rates["compute"], self.rates[level])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write results/artifact-layers-NETWORK.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=tuple(SUBJECTS), default="resnet18")
    parser.add_argument("--densities", nargs="+", type=float, default=(1.0, 0.5, 0.1, 0.05, 0.01))
    parser.add_argument("--edges", nargs="*", type=float, default=EDGES, help="densities judged, and not listed")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        wanted = [(density, plan) for density in (*options.densities, *options.edges) for plan in PLANS]
        subjects = [
            prepare(options.network, density, plan, Path(folder) / str(number))
            for number, (density, plan) in enumerate(wanted)
        ]
        found = measure(subjects, options.rounds)
    listed = [each for each in found if each.density in options.densities]
    print(record.write(result(options.network, options.rounds, found, listed), options.results, load=load))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """One network under one plan, compiled. measures: the program that prints what its steps take."""

    density: float
    plan: str
    program: Program
    layers: Mapping[int, Layer]
    layout: Layout
    measures: Path


def prepare(name: str, density: float, plan: str, folder: Path) -> Prepared:
    """Return a network whose steps can be measured, compiled in a new folder."""
    graph = simplify(capture(network(name, density), torch.rand(1, *IMAGE)))
    program = lower(graph)
    write_c(graph, folder, "net")
    return Prepared(
        density=density,
        plan=plan,
        program=program,
        layers=collect(program, "float32", place(program, UNITS["block"])).layers,
        layout=place(program, UNITS[plan]),
        measures=_compiled(folder, len(program.steps) + 2, PLANS[plan]),
    )


def measure(subjects: Sequence[Prepared], rounds: int) -> list[Profile]:
    """Return what every step takes at its fastest, of so many passes or a few more.

    Programs take turns, as machines change their pace.
    """
    printed = [[_run(each.measures, -(-rounds // TURNS)) for each in subjects] for _ in range(TURNS)]
    return [_profile(each, turns) for each, turns in zip(subjects, zip(*printed, strict=True), strict=True)]


def _profile(subject: Prepared, turns: Sequence[Mapping[str, Sequence[float]]]) -> Profile:
    taken, *seconds, given = (min(each) for each in zip(*(turn["step"] for turn in turns), strict=True))
    vectors = Vectors(**{each.name: int(turns[0][each.name][0]) for each in fields(Vectors)})
    steps = [
        _weighted(step, subject.layers[number], subject, vectors, each)
        if isinstance(step, Weighted)
        else Step(name=f"{type(step).__name__.lower()} {step.name}", seconds=each)
        for number, (step, each) in enumerate(zip(subject.program.steps, seconds, strict=True))
    ]
    around = [Step(name="images in", seconds=taken), Step(name="logits out", seconds=given)]
    rates = {rate: max(turn[rate][0] for turn in turns) for rate in ("compute", "first", "second", "third")}
    whole = min(turn["whole"][0] for turn in turns)
    return Profile(
        density=subject.density,
        plan=subject.plan,
        whole=whole,
        rates=rates,
        caches=caches(),
        steps=[*around, *steps],
    )


def caches(folder: Path = CACHES) -> tuple[int, int]:
    """Return the bytes of the first and second cache of a core, those of a small core where the machine is mute."""
    told: dict[str, int] = {}
    for index in folder.glob("index*"):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K"):
            told[level] = 1024 * int(size.removesuffix("K"))
    first, second = SMALL_CORE
    return told.get("1", first), told.get("2", second)


def _compiled(folder: Path, steps: int, images: int) -> Path:
    sizes = {"STEPS": steps, "IMAGES": images, "SIZE_IN": math.prod(IMAGE), "SIZE_OUT": 10, "WORK": f"{LONGEST}L"}
    names = {"NETWORK": '"net.c"', "RUN": "net_run_threads", "ARENA": "NET_ARENA_BYTES(1)"}
    defined = [f"-D{name}={value}" for name, value in {**sizes, **names}.items()]
    made = folder / "layers"
    command = [*compiler(), *OPTIMISE, native(), *defined, "-I", str(folder), str(PROGRAM), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


def _run(program: Path, rounds: int) -> dict[str, list[float]]:
    said = subprocess.run([str(program), str(rounds)], check=True, capture_output=True, text=True).stdout
    numbers: dict[str, list[float]] = {}
    for line in said.splitlines():
        word, _, number = line.partition(" ")
        numbers.setdefault(word, []).append(float(number))
    return numbers


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What a compiled program computes with. lanes: floats of a vector; halves: whether short maps use half ones.

    most: vectors of sums that are held at a time, of one output channel; most_dense: of each of four.
    """

    lanes: int
    most: int
    most_dense: int
    halves: int

    def tile(self, run: int, *, dense: bool) -> int:
        """Return how many floats of a run of sums are computed at a time, in the largest of tiles of equal size."""
        if self.halves and not dense and 2 * run <= self.lanes:
            return self.lanes // 2
        vectors = -(-run // self.lanes)
        tiles = -(-vectors // (self.most_dense if dense else self.most))
        return -(-vectors // tiles) * self.lanes


def _weighted(step: Weighted, layer: Layer, subject: Prepared, vectors: Vectors, seconds: float) -> Step:
    layout, images = subject.layout, PLANS[subject.plan]
    out, source = layout.maps[step.target], layout.maps[step.source]
    _, rows, columns = out.cells
    run = (rows - 1) * out.row + columns * layout.unit
    channels = min(layer.chunk * together(step, layer, layout), source.cells[0] // step.phases)
    kept = int(np.count_nonzero(step.weight))
    return Step(
        name=step.name,
        seconds=seconds,
        products=kept * rows * columns * images,
        zeros=(step.weight.size - kept) * rows * columns * images if layer.dense else 0,
        cells=rows * columns * layout.unit / run,
        reads=4 * cells_of_a_tile(step, layout, vectors.tile(run, dense=layer.dense)) * channels,
        dense=layer.dense,
    )


def cells_of_a_tile(step: Weighted, layout: Layout, tile: int) -> int:
    """Return how many floats of one input channel a tile of so many sums reads, in all of its phases."""
    row, found = layout.maps[step.source].row, 0
    for phase in {read.phase for read in step.reads}:
        begins = {read.row * row + read.column * layout.unit for read in step.reads if read.phase == phase}
        found += np.unique(np.concatenate([np.arange(begin, begin + tile) for begin in begins])).size
    return found


def result(name: str, rounds: int, found: Sequence[Profile], listed: Sequence[Profile]) -> record.Result:
    """Return a table for each density and plan that is listed, one of where the time goes, and claims on all."""
    return record.Result(
        name=f"artifact-layers-{name}",
        title=f"C artifact of {name}, step by step",
        rounds=rounds,
        claims=[_never_slower(name, each, found) for each in found if each.density < 1.0],
        tables=[_shares(found), *(_table(name, each) for each in listed)],
        details={"profiles": [{**vars(each), "steps": [vars(step) for step in each.steps]} for each in found]},
        threads=1,
    )


def _never_slower(name: str, profile: Profile, found: Sequence[Profile]) -> record.Claim:
    """Return the worst ratio of a layer's time to that of the same layer on the dense kernel, of all but tiny ones."""
    dense = next(each for each in found if (each.density, each.plan) == (1.0, profile.plan))
    whole = {step.name: step.seconds for step in dense.steps if step.reads is not None}
    ratios = [
        step.seconds / whole[step.name]
        for step in profile.steps
        if step.name in whole and whole[step.name] >= LEAST * dense.whole
    ]
    return record.Claim(
        what=f"{name}, {profile.density:.0%} of the weights, {profile.plan}: slowest layer to the dense kernel's time",
        measured=round(max(ratios), 2),
        goal=NOT_SLOWER,
        sense="at most",
    )


def _shares(found: Sequence[Profile]) -> record.Table:
    rows: list[list[record.Cell]] = []
    for each in found:
        weighted = [step for step in each.steps if step.reads is not None]
        least = [step.products / each.roof(step) for step in weighted]
        zeros = [step.zeros / each.roof(step) for step in weighted]
        made = zip(least, zeros, weighted, strict=True)
        gaps = [(kept + zero) * (1 / step.cells - 1) for kept, zero, step in made]
        busy = sum(step.seconds for step in weighted)
        known = (sum(least), sum(zeros), sum(gaps))
        parts = (*known, busy - sum(known), sum(s.seconds for s in each.steps) - busy)
        products = sum(step.products for step in weighted)
        rows.append(
            [
                f"{each.density:.0%}",
                each.plan,
                round(1e3 * each.whole, 2),
                round(products / busy / 1e9, 1),
                *(f"{part / each.whole:.0%}" for part in parts),
            ]
        )
    return record.Table(
        caption=(
            "Where the time of a pass goes (1 image, or a block of 8; every step at its fastest): multiply-adds at "
            "their roof; those by the zeros of layers on the dense kernel; those of cells in the gaps between rows, "
            "whose results nobody reads; the rest of weighted "
            "steps (what comes with every output channel and list, weights that come from further away, halves of "
            "tiles); all other steps"
        ),
        columns=[
            "density",
            "plan",
            "ms",
            "10^9 multiply-adds/s",
            "at the roof",
            "zeros",
            "gaps",
            "rest of them",
            "other steps",
        ],
        rows=rows,
    )


def _table(name: str, profile: Profile) -> record.Table:
    rates = ", ".join(f"{what} {rate / 1e9:.0f}" for what, rate in profile.rates.items())
    first, second = (size // 1024 for size in profile.caches)
    return record.Table(
        caption=(
            f"{name}, {profile.density:.0%} of the weights, plan {profile.plan}. Measured at best, 10^9 floats a "
            "second: multiply-adds in registers (compute), and on cells that are read from the first, second and third "
            f"cache: {rates}. A tile's cells come from the first up to {first} KiB, from the second up to {second}"
        ),
        columns=["step", "us", "KiB a tile reads", "10^9 multiply-adds/s", "roof", "share"],
        rows=[_row(profile, step) for step in profile.steps],
    )


def _row(profile: Profile, step: Step) -> list[record.Cell]:
    microseconds = round(1e6 * step.seconds, 1)
    if step.reads is None:
        return [step.name, microseconds, None, None, None, None]
    rate, roof = step.products / max(step.seconds, 1e-9), profile.roof(step)
    shown = step.name + (" (dense)" if step.dense else "")
    return [
        shown,
        microseconds,
        round(step.reads / 1024, 1),
        round(rate / 1e9, 1),
        round(roof / 1e9),
        f"{rate / roof:.0%}",
    ]


if __name__ == "__main__":
    main()
