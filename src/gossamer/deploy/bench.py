"""Which is faster, and by how much? Contestants take turns within rounds, and ratios are formed within a round.

Two protocols of Marshall's thesis: a batch that is already in memory, of which only the forward is timed (one image:
algorithm 4), and 100 images that are read from a file inside the timed section (algorithm 5); the file has just been
written, so that the system most likely has it in memory: what is timed is reading it, not the disk.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.deploy.about import About, read_about
from gossamer.deploy.artifact import files_of
from gossamer.deploy.bench_record import BenchRecord, Entry, Protocol, Timing
from gossamer.deploy.capture import capture
from gossamer.deploy.contestants import ENGINES, ON_ANY_DEVICE, Contestant, Forward
from gossamer.deploy.counts import FLOAT, Counts, count_network
from gossamer.deploy.device import Energy, profile
from gossamer.deploy.fresh import Fresh, measure_fresh
from gossamer.deploy.scratch import scratch
from gossamer.errors import ConfigError
from gossamer.runs import atomic

LOADED = 100
"""Images of a batch that is read inside the timed section."""

FEW = 2**24
"""Bytes of images that are held in memory, unless one batch alone takes more."""

SETTLED = 0.05
"""Seconds of warming up, at least: threads of the one before spin a while before they sleep."""

Call: TypeAlias = Callable[[Forward, int], Tensor]
"""Runs a forward on the batch of a number."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is timed. batches: of the protocol in memory; threads: of every engine alike; loading: that protocol too.

    rounds: in each of which every contestant has one turn, of `repeats` timed calls after `warm_up` others or more;
    fresh: measure start-up and memory in new processes. Raises ConfigError for counts below one.
    """

    batches: Sequence[int] = (1, 16, 64)
    threads: Sequence[int] = (1,)
    rounds: int = 10
    repeats: int = 10
    warm_up: int = 3
    loading: bool = True
    fresh: bool = True
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        counts = {"--batch": self.batches, "--threads": self.threads, "--rounds": (self.rounds,)}
        for flag, values in {**counts, "--repeats": (self.repeats,)}.items():
            if not values or min(values) < 1:
                raise ConfigError(
                    flag, expected="whole numbers >= 1", got=list(values), remedy="write for example 1,16"
                )


def bench(
    contestants: Sequence[Contestant],
    data: DataSet,
    plan: Plan,
    *,
    network: nn.Module | None,
    parent: nn.Module | None = None,
) -> BenchRecord:
    """Return how long contestants take on the images of a data set, beside one another.

    network: the plain network that they compute, whose work is counted; None where it is not at hand. parent: the dense
    one that its work is held against, where its own kernels are others. Who cannot take part, and a setting that cannot
    be prepared, is named with its reason. Speedups are against the fastest engine that takes no heed of zeros, in the
    same setting. Raises ConfigError where two have one name or none can run, RunError without a temporary folder.
    """
    _check_names(contestants)
    missing = {each.name: reason for each in contestants if (reason := _missing(each, plan.device)) is not None}
    present = [each for each in contestants if each.name not in missing]
    first = data.float(torch.zeros(1, dtype=torch.int64), device=plan.device)
    threads_before = torch.get_num_threads()
    timings: list[Timing] = []
    with scratch() as folder, torch.no_grad():
        try:
            for threads in plan.threads:
                torch.set_num_threads(threads)
                forwards, refused = _opened(present, first)
                missing |= refused
                for setting in _settings(data, plan, threads, folder):
                    done, failed = _timed(forwards, setting, plan)
                    timings += done
                    missing |= failed
                    forwards = {name: each for name, each in forwards.items() if name not in failed}
                present = [each for each in present if each.name in forwards]
        finally:
            torch.set_num_threads(threads_before)
    if not timings:
        raise ConfigError("bench", expected="someone who can run", got=str(missing), remedy="see what each is missing")
    timed = {timing.contestant for timing in timings}
    return BenchRecord(
        device=profile(plan.device),
        runs_on=str(plan.device),
        shape=data.image_shape,
        images=f"{len(data)} images of {data.name} ({data.part})",
        entries=tuple(_entry(each, first, plan) for each in contestants if each.name in timed),
        missing=missing,
        counts=None if network is None else counts_of(network, first, parent),
        timings=tuple(timings),
    )


def counts_of(network: nn.Module, image: Tensor, parent: nn.Module | None = None) -> Counts | None:
    """Return the work of an image (1, C, H, W), None for a network whose graph cannot be read.

    parent: the dense network that it is held against, where the network's own kernels are others.
    """
    x = image.cpu()
    try:
        return count_network(capture(network, x), None if parent is None else capture(parent, x))
    except ConfigError:
        return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """One protocol with one batch size and number of threads; prepare: returns what is timed, images in memory."""

    protocol: Protocol
    batch: int
    threads: int
    prepare: Callable[[], Call]

    def __str__(self) -> str:
        return f"{self.protocol}, {self.batch} images, {self.threads} threads"


def _settings(data: DataSet, plan: Plan, threads: int, folder: Path) -> list[Setting]:
    found = [
        Setting(protocol="memory", batch=batch, threads=threads, prepare=partial(_in_memory, data, batch, plan.device))
        for batch in plan.batches
    ]
    if plan.loading:
        prepare = partial(_from_file, data, folder / "images", plan.device)
        found.append(Setting(protocol="loading", batch=LOADED, threads=threads, prepare=prepare))
    return found


def _in_memory(data: DataSet, size: int, device: torch.device) -> Call:
    count = max(1, min(len(data), FEW // (FLOAT * math.prod(data.image_shape))) // size)
    rows = torch.arange(count * size).remainder(len(data))
    batches = data.float(rows, device=device).split(size)
    return lambda forward, number: forward(batches[number % count])


def _from_file(data: DataSet, path: Path, device: torch.device) -> Call:
    rows = torch.arange(max(LOADED, min(len(data), 10 * LOADED))).remainder(len(data))
    own = rows if data.rows is None else data.rows[rows.to(data.rows.device)]
    images = data.images.index_select(0, own.to(data.images.device)).cpu().numpy()
    if not path.exists():
        atomic.write_bytes(path, images.tobytes())
    kind, shape, size = images.dtype, images.shape[1:], images[0].nbytes
    batches = len(rows) // LOADED

    def call(forward: Forward, number: int) -> Tensor:
        start = number % batches * LOADED * size
        read = np.fromfile(path, kind, LOADED * images[0].size, offset=start)
        x = torch.from_numpy(read.reshape(LOADED, *shape)).to(device)
        return forward(x.float().div_(255) if x.dtype == torch.uint8 else x)

    return call


def _opened(present: Sequence[Contestant], example: Tensor) -> tuple[dict[str, Forward], dict[str, str]]:
    forwards: dict[str, Forward] = {}
    refused: dict[str, str] = {}
    for each in present:
        try:
            forwards[each.name] = each.open(example)
            forwards[each.name](example)
        # Engines fail in exceptions of their own: who fails is named, and the others go on.
        except Exception as error:
            refused[each.name] = _told(error)
            forwards.pop(each.name, None)
    return forwards, refused


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _timed(forwards: Mapping[str, Forward], setting: Setting, plan: Plan) -> tuple[list[Timing], dict[str, str]]:
    """Return the times of all in one setting, and why others could not go through with it."""
    failed: dict[str, str] = {}
    try:
        call = setting.prepare()
    # Whether the disk or the memory is full: the other settings are timed.
    except Exception as error:
        return [], {str(setting): _told(error)}
    energy = Energy.of(plan.device)
    seconds: dict[str, list[list[float]]] = {name: [] for name in forwards}
    joules: dict[str, list[float]] = {name: [] for name in forwards}
    names = list(forwards)
    for number in range(plan.rounds):
        turn = number % max(1, len(names))
        for name in [name for name in names[turn:] + names[:turn] if name not in failed]:
            try:
                spent, used = _turn(forwards[name], call, plan, energy, first=number * plan.repeats)
            except Exception as error:
                failed[name] = f"{setting.batch} images, {setting.threads} threads: {_told(error)}"
                continue
            seconds[name].append(spent)
            joules[name] += [] if used is None else [used]
    through = [name for name in names if name not in failed]
    timings = [_timing(name, setting, seconds[name], joules[name], plan.repeats) for name in through]
    return _with_speedups(timings), failed


def _turn(forward: Forward, call: Call, plan: Plan, energy: Energy, *, first: int) -> tuple[list[float], float | None]:
    """Return the seconds of timed calls, which go on with the batch of number `first`, and the joules of all."""
    started, number = time.perf_counter(), 0
    while number < plan.warm_up or time.perf_counter() - started < SETTLED:
        call(forward, number)
        number += 1
    _wait(plan.device)
    before = energy.read()
    spent: list[float] = []
    for number in range(first, first + plan.repeats):
        started = time.perf_counter()
        call(forward, number)
        _wait(plan.device)
        spent.append(time.perf_counter() - started)
    return spent, energy.joules(before, energy.read())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timing(name: str, setting: Setting, rounds: list[list[float]], joules: list[float], repeats: int) -> Timing:
    spent = [seconds for each in rounds for seconds in each]
    mean = statistics.fmean(spent)
    return Timing(
        contestant=name,
        protocol=setting.protocol,
        batch=setting.batch,
        threads=setting.threads,
        calls=len(spent),
        mean=mean,
        median=statistics.median(spent),
        p95=float(np.quantile(spent, 0.95)),
        throughput=setting.batch / mean,
        rounds=tuple(statistics.median(each) for each in rounds),
        against=None,
        speedups=None,
        speedup=None,
        joules=sum(joules) / (len(joules) * repeats * setting.batch) if joules else None,
    )


def _with_speedups(timings: list[Timing]) -> list[Timing]:
    dense = [each for each in timings if each.contestant in ENGINES and ENGINES[each.contestant].dense]
    if not dense:
        return timings
    best = min(dense, key=lambda each: each.median)
    return [_compared(each, best) for each in timings]


def _compared(timing: Timing, best: Timing) -> Timing:
    ratios = tuple(theirs / ours for theirs, ours in zip(best.rounds, timing.rounds, strict=True))
    return replace(timing, against=best.contestant, speedups=ratios, speedup=statistics.median(ratios))


def _entry(contestant: Contestant, image: Tensor, plan: Plan) -> Entry:
    path = contestant.path
    about = None if path is None else read_about(path)
    fresh = measure_fresh(contestant, image, plan.threads[0]) if plan.fresh else Fresh()
    return Entry(
        name=contestant.name,
        kind=contestant.kind if about is None else about.kind,
        bytes=_bytes(path, about),
        density=None if about is None else about.parent.density,
        start_up=fresh.start_up,
        peak=fresh.peak,
        before=fresh.before,
        failure=fresh.failure,
    )


def _bytes(path: Path | None, about: About | None) -> int | None:
    if about is not None:
        return about.bytes
    return None if path is None else sum(each.stat().st_size for each in files_of(path))


def _missing(contestant: Contestant, device: torch.device) -> str | None:
    if contestant.path is None:
        return ENGINES[contestant.name].missing(device)
    fits = device.type == "cpu" or contestant.kind in ON_ANY_DEVICE
    return None if fits else f"a file of kind {contestant.kind} runs on the CPU alone"


def _check_names(contestants: Sequence[Contestant]) -> None:
    names = [each.name for each in contestants]
    if len(set(names)) < len(names):
        raise ConfigError("bench", expected="files of different names", got=", ".join(names), remedy="rename one")
