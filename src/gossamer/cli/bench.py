"""`gossamer bench`: how fast are artifacts beside the engines that one would use instead, and what do they cost?"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from gossamer.cli import options
from gossamer.cli.export import RESTRUCTURED
from gossamer.cli.subjects import one_of, open_origin, read_options
from gossamer.data import DataSet, from_tensors
from gossamer.data.registry import load
from gossamer.deploy import sparse_file
from gossamer.deploy.about import check_parent, read_about
from gossamer.deploy.artifact import Artifact, check_artifact, open_artifact
from gossamer.deploy.bench import Plan
from gossamer.deploy.bench import bench as measure
from gossamer.deploy.bench_figure import write_figure
from gossamer.deploy.bench_program import write_program
from gossamer.deploy.bench_record import read_bench
from gossamer.deploy.contestants import ENGINES, Contestant, of_file
from gossamer.deploy.published import is_published, read_manifest
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, GossamerError
from gossamer.models.registry import MODELS, build
from gossamer.recipe.build import build_model
from gossamer.recipe.open import open_run
from gossamer.training.devices import place

RANDOM_IMAGES = 128


def bench(
    files: Annotated[list[Path], typer.Argument(help="artifacts; with --merge, JSON files of benches")],
    against: Annotated[str | None, typer.Option(help=f"engines, with commas: {', '.join(ENGINES)}")] = None,
    run: Annotated[
        Path | None, typer.Option(help="the run they came from: its network for the engines, and its images")
    ] = None,
    threads: Annotated[
        str, typer.Option(help="of every contestant alike, with commas; all: as many as cores")
    ] = "1,all",
    batch: Annotated[str, typer.Option(help="images in memory, with commas")] = "1,16,64",
    rounds: Annotated[int, typer.Option(help="in each of which every contestant has one turn")] = 10,
    repeats: Annotated[int, typer.Option(help="timed calls of a turn")] = 10,
    fresh: Annotated[
        bool, typer.Option("--fresh/--no-fresh", help="start-up time and memory, in new processes")
    ] = True,
    merge: Annotated[bool, typer.Option("--merge", help="draw benches of several devices as one figure")] = False,
    program: Annotated[
        Path | None,
        typer.Option(help="write a C program that times C artifacts on a device without Python, and time nothing here"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="the figure of --merge")] = Path("bench.html"),
    data: options.Data = None,
    data_option: options.DataOptions = None,
    data_dir: options.DataDir = None,
    part: options.Part = "test",
    trust: options.Trust = False,
    device: options.Device = "cpu",
    json: options.Json = None,
) -> None:
    """Time artifacts and engines in turns: one batch in memory, and 100 images read inside the timed section.

    Nothing is kept before the end: killed, the same command begins anew.
    """
    if merge and program is not None:
        raise ConfigError("--program", expected="either it or --merge", got="both", remedy="leave one out")
    if merge:
        write_figure([read_bench(path) for path in files], output)
        print(f"written: {output}")
        return
    for path in files:
        check_artifact(path)
    opened = None if run is None else open_origin(run, data_dir, trust=trust)
    network, named = (opened.network, None) if opened is not None else _network(files, trust=trust)
    if opened is not None:
        _check_one_of(files, opened.network)
    parent = None if network is None else _parent(named, run, data_dir)
    if program is not None:
        write_program(files, program, network=network, parent=parent)
        print(f"written: {program}, which says how it is compiled")
        return
    contestants = [
        *(of_file(path, trust=trust, network=network) for path in files),
        *_engines(against, network),
    ]
    plan = Plan(
        batches=[_count("--batch", each) for each in batch.split(",")],
        threads=sorted({_count("--threads", each) for each in threads.split(",")}),
        rounds=rounds,
        repeats=repeats,
        fresh=fresh,
        device=place(device).device,
    )
    if data is None:
        images = opened.part(part) if opened is not None else _random_images(open_artifact(files[0], trust=trust))
    else:
        images = load(data, part, data_dir=data_dir, **read_options(tuple(data_option or ()), "--data-option"))
    measured = measure(contestants, images, plan, network=network, parent=parent)
    print(measured)
    if json is not None:
        measured.save(json)
        print(f"written: {json}")


def _check_one_of(files: Sequence[Path], network: nn.Module) -> None:
    """Raise ConfigError unless one of the artifacts at least is of the run; others, its dense parent's say, may be."""
    refused: list[ConfigError] = []
    for path in files:
        try:
            check_parent(path, read_about(path), network)
        except ConfigError as error:
            refused.append(error)
    if len(refused) == len(files):
        raise refused[0]


def _network(files: list[Path], *, trust: bool) -> tuple[nn.Module | None, Network | None]:
    """Return the plain network of the first sparse file that names one and has it, and how it is built."""
    for path in files:
        if path.suffix == ".safetensors":
            try:
                return open_artifact(path, trust=trust).model, sparse_file.about(path).header.network
            except GossamerError:
                continue
    return None, None


def _parent(named: Network | None, run: Path | None, data_dir: Path | None) -> nn.Module | None:
    """Return the dense network that the work of one with other kernels is held against, None for all others."""
    if run is not None and not is_published(run):
        opened = open_run(run, data_dir)
        return build_model(opened.recipe, opened.parts.test) if opened.form() in RESTRUCTURED else None
    named = read_manifest(run).network if run is not None else named
    if named is None or named.form not in RESTRUCTURED or named.name not in MODELS:
        return None
    return build(named.name, **named.options)


def _engines(against: str | None, network: nn.Module | None) -> list[Contestant]:
    names = [] if against is None else [name.strip() for name in against.split(",") if name.strip()]
    for name in names:
        one_of("--against", name, tuple(ENGINES))
    if names and network is None:
        raise ConfigError(
            "--against",
            expected="the network that engines run: --run RUN, or a sparse file of one of the package's networks",
            got="neither",
            remedy="write --run RUN",
        )
    return [Contestant(name=name, kind="engine", network=network) for name in names]


def _count(flag: str, text: str) -> int:
    if text.strip() == "all" and flag == "--threads":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if text.strip().isdecimal():
        return int(text)
    raise ConfigError(flag, expected="whole numbers with commas", got=repr(text), remedy="write 1,16,64, say")


def _random_images(artifact: Artifact) -> DataSet:
    """Return random images where no data are named: how long a network takes does not depend on them."""
    if artifact.shape is None or artifact.classes is None:
        raise ConfigError("--data", expected="a data set", got="none", remedy="write --run RUN or --data NAME")
    images = torch.rand(RANDOM_IMAGES, *artifact.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(RANDOM_IMAGES) % artifact.classes
    return from_tensors((255 * images).to(torch.uint8), labels, part="random")
