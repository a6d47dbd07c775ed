"""How long does a forward pass of each of several networks take, all exported as one kind and timed in turns?"""

from collections.abc import Mapping

import torch
from torch import nn

from gossamer.data import DataSet
from gossamer.deploy.bench import Plan, bench
from gossamer.deploy.bench_record import BenchRecord, Entry
from gossamer.deploy.contestants import of_file
from gossamer.deploy.export import KINDS, export
from gossamer.deploy.scratch import scratch
from gossamer.errors import ConfigError
from gossamer.runs.environment import environment
from gossamer.runs.protocols import LatencyTable, PassTime, TimedModel

TIMED = ("c", "onnx")
"""Kinds that are a network wholly, without a module beside them."""


def latency(
    networks: Mapping[str, nn.Module],
    data: DataSet,
    *,
    kind: str = "c",
    batch: int = 1,
    threads: int = 1,
    rounds: int,
    repeats: int = 10,
    loading: bool = True,
) -> LatencyTable:
    """Export plain networks and time a batch in memory, and where `loading` 100 images that are read; on the CPU.

    rounds, in each of which every network has `repeats` calls that count after as many, at most 3, that do not: of each
    pass rounds x repeats count. kind: of the artifacts, c, whose loops leave zeros out, or onnx, which has no heed of
    them. Raises ConfigError for another kind and a network that cannot be timed, and what `export` raises.
    """
    if kind not in TIMED:
        raise ConfigError("kind", expected=f"one of {', '.join(TIMED)}", got=kind, remedy="write c, say")
    example = data.float(torch.arange(min(2, len(data))))
    with scratch() as folder:
        # A name in C has letters and digits alone, which names of networks need not.
        paths = [
            export(network, example, kind, folder / f"network_{place}{KINDS[kind].suffix}").path
            for place, network in enumerate(networks.values())
        ]
        contestants = [of_file(path, trust=True, network=None) for path in paths]
        plan = Plan(
            batches=(batch,),
            threads=(threads,),
            rounds=rounds,
            repeats=repeats,
            warm_up=min(repeats, Plan.warm_up),
            loading=loading,
            fresh=False,
        )
        measured = bench(contestants, data, plan, network=None)
    if measured.missing:
        raise ConfigError(
            "latency",
            expected="networks that can all be timed",
            got=str(measured.missing),
            remedy="see what is missing",
        )
    rows = zip(networks, paths, measured.entries, strict=True)
    return LatencyTable(
        kind=kind,
        device=measured.device.name,
        threads=threads,
        rows=tuple(_row(name, path.name, entry, measured) for name, path, entry in rows),
        environment=environment(torch.device("cpu")),
    )


def _row(name: str, contestant: str, entry: Entry, measured: BenchRecord) -> TimedModel:
    assert entry.density is not None
    assert entry.bytes is not None
    return TimedModel(
        name=name,
        density=entry.density,
        bytes=entry.bytes,
        passes=tuple(
            PassTime(
                batch=timing.batch,
                loaded=timing.protocol == "loading",
                mean=timing.mean,
                median=timing.median,
                p95=timing.p95,
            )
            for timing in measured.timings
            if timing.contestant == contestant
        ),
    )
