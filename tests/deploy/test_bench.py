"""Benches: turns within rounds, ratios within a round, work counted by hand, and whoever is missing named."""

import dataclasses
import errno
import functools
import itertools
import multiprocessing
import os
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from shipped import images, labelled, small
from torch import Tensor, nn

from gossamer.data import DataSet, from_tensors
from gossamer.deploy import bench as bench_file
from gossamer.deploy import fresh as fresh_file
from gossamer.deploy.bench import Plan, bench, counts_of
from gossamer.deploy.bench_figure import write_figure
from gossamer.deploy.bench_record import BenchRecord, read_bench
from gossamer.deploy.capture import capture
from gossamer.deploy.contestants import ENGINES, Contestant, Engine, Forward, of_file
from gossamer.deploy.counts import Work, count
from gossamer.deploy.csource.layout import place
from gossamer.deploy.csource.lowering import lower
from gossamer.deploy.csource.tables import collect
from gossamer.deploy.csr import SparseRows
from gossamer.deploy.device import FORGET, Energy, memory_now, memory_peak
from gossamer.deploy.export import export
from gossamer.deploy.fresh import measure_fresh
from gossamer.deploy.parity import parity
from gossamer.deploy.simplify import simplify
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.network import describe_network
from gossamer.models import build
from gossamer.runs import records

QUICK = Plan(batches=(1, 4), rounds=2, repeats=2, warm_up=1, fresh=False)


def engine(name: str, network: nn.Module | None = None) -> Contestant:
    return Contestant(name=name, kind="engine", network=network or small())


def test_engines_and_artifacts_are_timed_by_both_protocols(tmp_path: Path):
    path = export(small(), images(1), "sparse", tmp_path / "net").path
    contestants = [of_file(path, trust=False, network=small()), engine("torch"), engine("torch-csr")]
    found = bench(contestants, labelled(small()), QUICK, network=small())
    settings = [("memory", 1), ("memory", 4), ("loading", 100)]
    wanted = [(protocol, batch, each.name) for protocol, batch in settings for each in contestants]
    assert [(timing.protocol, timing.batch, timing.contestant) for timing in found.timings] == wanted
    for timing in found.timings:
        assert timing.calls == 4
        assert 0 < timing.median <= timing.p95
        assert timing.throughput == pytest.approx(timing.batch / timing.mean)
        assert timing.against == "torch"
        assert len(timing.speedups) == len(timing.rounds) == 2
        if timing.contestant == "torch":
            assert timing.speedups == (1.0, 1.0)
    (shipped, *_) = found.entries
    assert (shipped.kind, shipped.bytes, shipped.failure) == ("sparse", path.stat().st_size, None)
    found.save(tmp_path / "bench.json")
    assert records.to_json(read_bench(tmp_path / "bench.json")) == records.to_json(found)
    assert "speedup" in str(found)


def test_sparse_files_of_different_networks_are_timed_beside_one_another(tmp_path: Path):
    x = torch.rand(8, 1, 8, 8)
    plain, narrow = build("digits-cnn").eval(), build("digits-cnn", width=0.5).eval()
    files = [
        export(model, x, "sparse", tmp_path / name, network=Network(name="digits-cnn", options=options)).path
        for name, model, options in (("plain", plain, {}), ("narrow", narrow, {"width": 0.5}))
    ]
    contestants = [of_file(path, trust=False, network=plain) for path in files]
    found = bench(contestants, from_tensors(x, torch.arange(8), part="test"), QUICK, network=plain)
    assert found.missing == {}
    assert {timing.contestant for timing in found.timings} == {"plain.safetensors", "narrow.safetensors"}


def test_who_fails_at_some_batch_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch):
    def failing(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if len(x) > 1:
                raise MemoryError("too many")
            return network(x)

        return forward

    engines = {**ENGINES, "small": Engine(summary="of one image", open=failing)}
    monkeypatch.setattr("gossamer.deploy.contestants.ENGINES", engines)
    monkeypatch.setattr(bench_file, "ENGINES", engines)
    found = bench([engine("small"), engine("torch")], labelled(small()), QUICK, network=small())
    assert found.missing == {"small": "4 images, 1 threads: too many"}
    timed = [(timing.contestant, timing.batch) for timing in found.timings]
    assert timed == [("small", 1), ("torch", 1), ("torch", 4), ("torch", 100)]
    assert [entry.name for entry in found.entries] == ["small", "torch"]


def test_what_cannot_be_prepared_is_named_and_the_rest_is_timed(monkeypatch: pytest.MonkeyPatch):
    """A disk that is full while the images of the first loading setting are written, and has room again later."""
    full = iter([True])

    def sync(path: Path) -> None:
        if next(full, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gossamer.runs.atomic.sync", sync)
    plan = dataclasses.replace(QUICK, batches=(1,), threads=(1, 2))
    found = bench([engine("torch")], labelled(small()), plan, network=None)
    timed = [(timing.protocol, timing.threads) for timing in found.timings]
    assert timed == [("memory", 1), ("memory", 2), ("loading", 2)]
    assert found.missing.keys() == {"loading, 100 images, 1 threads"}
    assert "loading, 100 images, 1 threads: left out" in str(found)
    assert "No space left on device; free space" in str(found)


def test_every_round_goes_on_with_further_images(monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []

    def noting(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            seen.append(float(x.sum()))
            return network(x)

        return forward

    engines = {"torch": Engine(summary="noting", open=noting)}
    monkeypatch.setattr("gossamer.deploy.contestants.ENGINES", engines)
    monkeypatch.setattr(bench_file, "ENGINES", engines)
    monkeypatch.setattr(bench_file, "SETTLED", 0.0)
    plan = Plan(batches=(1,), rounds=3, repeats=2, warm_up=1, fresh=False, loading=False)
    bench([engine("torch")], labelled(small()), plan, network=None)
    timed = [value for index, value in enumerate(seen[1:]) if index % 3]
    assert len(timed) == len(set(timed)) == 6


class Clock:
    """Time that passes only where a contestant makes it pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_contestants_take_turns_and_ratios_are_of_one_round(monkeypatch: pytest.MonkeyPatch):
    """The machine is three times slower in its second round: each time triples, no ratio changes."""
    clock, order = Clock(), list[str]()
    monkeypatch.setattr(bench_file, "time", clock)

    def slow(name: str, seconds: float) -> Engine:
        def forward(x: Tensor) -> Tensor:
            order.append(name)
            # One call when it is opened, and four in a round.
            clock.now += seconds * (3 if order.count(name) > 5 else 1)
            return x.flatten(1)

        return Engine(summary=name, open=lambda network, example: forward, dense=name != "ours")

    for name, seconds in (("ours", 1.0), ("dense", 4.0), ("slower", 8.0)):
        monkeypatch.setitem(ENGINES, name, slow(name, seconds))  # type: ignore[arg-type]
    contestants = [engine(name) for name in ("ours", "dense", "slower")]
    plan = Plan(batches=(2,), rounds=2, repeats=3, warm_up=1, loading=False, fresh=False)
    found = bench(contestants, labelled(small()), plan, network=None)
    assert found.counts is None
    # Each opens with one call; then rounds begin with another contestant each.
    groups = [(name, len(list(calls))) for name, calls in itertools.groupby(order[3:])]
    assert groups == [("ours", 4), ("dense", 4), ("slower", 4), ("dense", 4), ("slower", 4), ("ours", 4)]
    ours, dense, slower = found.timings
    assert ours.against == dense.against == slower.against == "dense"
    assert [ours.rounds, dense.rounds, slower.rounds] == [(1.0, 3.0), (4.0, 12.0), (8.0, 24.0)]
    assert [ours.speedup, dense.speedup, slower.speedup] == [4.0, 1.0, 0.5]


def test_who_cannot_take_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    absent = Engine(summary="", open=lambda network, example: network, packages=("no_such_package",))
    monkeypatch.setitem(ENGINES, "absent", absent)  # type: ignore[arg-type]

    def refuses(network: nn.Module, example: Tensor) -> Tensor:
        raise RuntimeError("it cannot")

    monkeypatch.setitem(ENGINES, "broken", Engine(summary="", open=refuses))  # type: ignore[arg-type]
    (tmp_path / "net.c").write_text("")
    untrusted = of_file(tmp_path / "net.c", trust=False, network=None)
    found = bench(
        [engine("torch"), engine("absent"), engine("broken"), untrusted], labelled(small()), QUICK, network=None
    )
    assert found.missing["absent"] == "not installed: no_such_package"
    assert found.missing["broken"] == "it cannot"
    assert "--trust" in found.missing["net.c"]
    assert [entry.name for entry in found.entries] == ["torch"]
    assert "absent: left out, not installed: no_such_package" in str(found)
    with pytest.raises(ConfigError, match="someone who can run"):
        bench([engine("absent")], labelled(small()), QUICK, network=None)


def test_threads_come_back(monkeypatch: pytest.MonkeyPatch):
    before = torch.get_num_threads()
    plan = Plan(batches=(1,), threads=(1, 2), rounds=1, repeats=1, loading=False, fresh=False)
    found = bench([engine("torch")], labelled(small()), plan, network=None)
    assert [timing.threads for timing in found.timings] == [1, 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("change", [{"rounds": 0}, {"repeats": 0}, {"batches": ()}, {"threads": (1, 0)}])
def test_impossible_plans_are_refused(change: dict[str, int | Sequence[int]]):
    with pytest.raises(ConfigError, match="whole numbers >= 1"):
        Plan(**change)  # type: ignore[arg-type]


def test_two_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="different names"):
        bench([engine("torch"), engine("torch")], labelled(small()), QUICK, network=None)


def test_the_work_of_an_image_is_counted():
    """A 3x3 convolution with 3 of 18 weights on 4 x 4 places, then 2 of 64 of a linear layer; a place is 2 bytes."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(32, 2))
    with torch.no_grad():
        for layer, kept in ((network[0], 3), (network[2], 2)):
            mask = torch.zeros(layer.weight.numel())
            mask[:kept] = 1
            layer.weight.copy_(mask.view_as(layer.weight))
    graph = capture(network, torch.rand(1, 1, 4, 4))
    counts = count(graph)
    # Read and written in float32: 16 and 32 numbers by the convolution, 32 and 32 flattened, 32 and 2 at the end.
    maps = 4 * (16 + 32 + 32 + 32 + 32 + 2)
    assert counts.dense == Work(multiplications=18 * 16 + 64, additions=18 * 16 + 64, bytes=maps + 4 * (18 + 64))
    assert counts.kept == Work(multiplications=50, additions=50, bytes=maps + (4 + 2) * 5)
    assert counts.signs == Work(multiplications=34, additions=50, bytes=maps + 2 * 5)
    assert counts.work_ratio == 352 / 50
    assert counts.signs_save == (100 - 84) / 100


def test_the_bytes_of_weights_are_those_that_c_files_read():
    """A sparse convolution reads places, a dense one all of its weights alone, one of several groups always places."""
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)]
    network = nn.Sequential(*layers, nn.Flatten())
    with torch.no_grad():
        for layer, kept in zip(layers, (7, 90, 36), strict=True):
            layer.weight.view(-1)[kept:] = 0
    graph = capture(network, torch.rand(1, 1, 6, 6))
    program = lower(graph)
    constants = collect(program, "float32", place(program, 8))
    assert [layer.dense for layer in constants.layers.values()] == [False, True, False]
    counts = count(graph, maps=0)
    assert counts.kept.bytes == (4 + 2) * 7 + 4 * 144 + (4 + 2) * 36
    assert counts.signs.bytes == 2 * (7 + 90 + 36)


def dead(network: nn.Module) -> nn.Module:
    """Kill two of the eight channels of the small network: one without weights, one by the scale of its batch norm."""
    with torch.no_grad():
        network[0].weight[2] = 0  # type: ignore[index]
        network[1].weight[5] = 0  # type: ignore[index]
    return network


def test_work_is_counted_as_reports_count_it_dead_channels_included():
    network = dead(small())
    counts, told = counts_of(network, images(1)), describe_network(network, (2, 6, 6))
    assert counts is not None
    assert counts.dense.multiplications == told.totals.multiply_adds == 36 * 8 * 18 + 72 * 3
    assert counts.kept.multiplications == told.totals.kept_multiply_adds
    assert counts.work_ratio == told.work_ratio
    assert counts.computed is not None
    assert counts.computed.multiplications < counts.kept.multiplications


def test_the_work_of_fewer_channels_is_held_against_the_dense_parent():
    torch.manual_seed(0)
    parent, slim = (
        nn.Sequential(nn.Conv2d(2, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 3)).eval()
        for width in (8, 2)
    )
    counts, told = counts_of(slim, images(1), parent), describe_network(slim, (2, 6, 6), parent=parent)
    assert counts is not None
    assert counts.dense.multiplications == told.totals.multiply_adds == 16 * 8 * 18 + 128 * 3
    assert counts.work_ratio == told.work_ratio == 4


def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the inputs of every graph that torch.compile hands to its compiler, which leaves it as it is."""
    found: list[int] = []

    def keep(graph: Callable[..., Any], inputs: Sequence[object]) -> Callable[..., Any]:
        found.append(len(inputs))
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=keep))
    return found


def test_a_compiled_network_holds_its_weights_as_constants(monkeypatch: pytest.MonkeyPatch):
    inputs = compiled_graphs(monkeypatch)
    with torch.no_grad():
        forward = engine("torch-compile").open(images(2))
        for _ in range(2):
            assert torch.allclose(forward(images(2)), small()(images(2)), atol=1e-5)
    assert inputs == [1]


def test_every_network_and_every_shape_is_compiled(monkeypatch: pytest.MonkeyPatch):
    """More networks of one class, and more shapes of one network, than torch compiles by itself."""
    graphs, many = compiled_graphs(monkeypatch), 10
    with torch.no_grad():
        for _ in range(many):
            engine("torch-compile").open(images(1))(images(1))
        assert len(graphs) == many
        forward = engine("torch-compile").open(images(1))
        for count in range(1, many + 1):
            forward(images(count))
    assert len(graphs) == 2 * many


def test_an_empty_network_has_no_ratio():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(network[1].weight)  # type: ignore[arg-type]
    counts = count(capture(network, torch.rand(1, 1, 2, 2)))
    assert (counts.work_ratio, counts.signs_save, counts.kept.multiplications) == (None, None, 0)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(4, 8, (3, 2), stride=(1, 2), padding=(2, 0), groups=2),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 5, 1),
    ],
)
def test_rows_of_sparse_matrices_give_the_networks_logits(convolution: nn.Conv2d):
    network = nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3))
    x = torch.rand(3, 4, 9, 8)
    network(x)
    with torch.no_grad():
        convolution.weight.mul_(torch.rand_like(convolution.weight) < 0.4)
    rows = SparseRows(simplify(capture(network.eval(), x)))
    assert parity(network, rows, x).error < 1e-5


def test_all_constants_of_sparse_matrices_move_with_the_module():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 3)).eval()
    rows = SparseRows(simplify(capture(network, images(1))))
    assert "Affine" in {type(node.operation).__name__ for node in rows.graph.nodes}
    (scale,) = (name for name, _ in rows.named_buffers() if name.startswith("scale"))
    rows.get_buffer(scale).mul_(2)
    network[0].weight.data.mul_(2)  # type: ignore[union-attr]
    assert parity(network, rows, images(3)).error < 1e-5


def zone(root: Path, number: str, name: str, **shown: int) -> Path:
    made = root / f"intel-rapl:{number}"
    made.mkdir()
    (made / "name").write_text(f"{name}\n")
    for file, value in shown.items():
        (made / file).write_text(f"{value}\n")
    return made


def test_energy_is_what_the_counters_gained_and_counters_turn_over(tmp_path: Path):
    first = zone(tmp_path, "0", "package-0", energy_uj=100, max_energy_range_uj=999)
    second = zone(tmp_path, "1", "package-1", energy_uj=990, max_energy_range_uj=999)
    zone(tmp_path, "0:0", "core", energy_uj=5, max_energy_range_uj=999)
    energy = Energy.find(tmp_path)
    before = energy.read()
    (first / "energy_uj").write_text("300\n")
    (second / "energy_uj").write_text("40\n")
    # 200 of the first; the second went from 990 over 999 to 40.
    assert energy.joules(before, energy.read()) == pytest.approx(250e-6)
    assert energy.reason.startswith("RAPL, 2 processor packages")


def test_the_platform_is_not_counted_beside_its_packages(tmp_path: Path):
    zone(tmp_path, "0", "package-0", energy_uj=100, max_energy_range_uj=999)
    zone(tmp_path, "1", "psys", energy_uj=900, max_energy_range_uj=999)
    assert Energy.find(tmp_path).read() == (100,)


def test_a_reading_that_failed_is_no_energy_at_all(tmp_path: Path):
    package = zone(tmp_path, "0", "package-0", energy_uj=100, max_energy_range_uj=999)
    energy = Energy.find(tmp_path)
    before = energy.read()
    (package / "energy_uj").unlink()
    failed = energy.read()
    assert energy.joules(before, failed) is None
    assert energy.joules(failed, before) is None


def test_without_counters_joules_are_unknown_with_a_reason(tmp_path: Path):
    energy = Energy.find(tmp_path)
    assert energy.joules(energy.read(), energy.read()) is None
    assert energy.reason == f"no RAPL counters of processor packages in {tmp_path}"
    zone(tmp_path, "0", "package-0")
    assert "cannot be read" in Energy.find(tmp_path).reason
    assert Energy.of("cuda:0") == Energy(counters=(), reason="not known of cuda: RAPL counts the processor alone")


def test_few_images_are_held_in_memory_and_of_one_setting_at_a_time(monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    whole = bench_file._in_memory

    def counting(data: DataSet, size: int, device: torch.device) -> Callable[[Forward, int], Tensor]:
        call = whole(data, size, device)
        seen = {float(call(lambda x: x.sum(), number)) for number in range(100)}
        held.append(len(seen))
        alive.append(weakref.ref(call))
        assert sum(each() is not None for each in alive) == 1
        return call

    alive: list[weakref.ref[Any]] = []
    monkeypatch.setattr(bench_file, "_in_memory", counting)
    # Ten images of 2 x 6 x 6 floats.
    monkeypatch.setattr(bench_file, "FEW", 10 * 4 * 72)
    plan = Plan(batches=(2, 5, 20), rounds=1, repeats=1, warm_up=1, fresh=False, loading=False)
    bench([engine("torch")], labelled(small()), plan, network=None)
    assert held == [5, 2, 1]


@pytest.mark.skipif(memory_now() is None, reason="the system does not say how much memory a process holds")
def test_a_new_process_tells_start_up_and_peak():
    found = measure_fresh(engine("torch"), images(1), threads=1)
    assert found.failure is None
    assert found.start_up > 0
    assert found.peak >= found.before > 2**20
    assert memory_peak() >= memory_now()


@pytest.mark.skipif(not FORGET.exists(), reason="the system cannot let the peak begin anew")
def test_the_peak_is_that_since_opening():
    ours, theirs = multiprocessing.Pipe(duplex=False)
    large = b"x" * 2**28
    assert memory_peak() > len(large)
    del large
    fresh_file._run(engine("torch"), images(1).numpy(), "cpu", torch.get_num_threads(), theirs)
    found = ours.recv()
    assert 0 <= found.peak - found.before < 2**27


def test_what_fails_in_a_new_process_is_told():
    found = measure_fresh(engine("torch", nn.Linear(3, 3)), images(1), threads=1)
    assert found.start_up is None
    assert found.failure is not None
    assert found.failure.startswith("RuntimeError")


@pytest.fixture
def two_devices() -> list[BenchRecord]:
    one = bench([engine("torch")], labelled(small()), QUICK, network=None)
    device = dataclasses.replace(one.device, name="A slower <device>")
    other = dataclasses.replace(one, device=device)
    return [one, other]


def test_benches_of_devices_become_one_page(two_devices: list[BenchRecord], tmp_path: Path):
    write_figure(two_devices, tmp_path / "figure.html")
    text = (tmp_path / "figure.html").read_text()
    assert "A slower" in text
    assert "<device>" not in text
    assert "yaxis2" in text
    write_figure([two_devices[0]] * 2, tmp_path / "twins.html")
    assert all(f"cpu ({number})" in (tmp_path / "twins.html").read_text() for number in (1, 2))
    with pytest.raises(ConfigError, match="FIGURE"):
        write_figure(two_devices, tmp_path / "figure.pdf")
    with pytest.raises(ConfigError, match="FIGURE"):
        write_figure([], tmp_path / "figure.html")


def test_a_bench_of_no_images_is_refused(two_devices: list[BenchRecord], tmp_path: Path):
    path = tmp_path / "bench.json"
    two_devices[0].save(path)
    path.write_text(re.sub(r'"batch": \d+', '"batch": 0', path.read_text()))
    with pytest.raises(RunError, match="batch"):
        read_bench(path)
