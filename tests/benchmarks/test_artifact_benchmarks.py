"""The benchmarks of artifacts: which weights they keep, what they claim, and how they add up where time goes."""

from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest
import torch
from torch import nn

import artifact_layers
import artifact_masks
import artifact_speed
from gossamer.deploy.bench_record import Timing
from gossamer.deploy.capture import capture
from gossamer.deploy.csource.emit import UNITS
from gossamer.deploy.csource.layout import place
from gossamer.deploy.csource.lowering import lower
from gossamer.deploy.csource.program import Weighted
from gossamer.deploy.simplify import simplify
from gossamer.kernels.build import COMPILERS
from gossamer.sparsity.targets import targets
from masks import divided, published, same, thin

TIMING = Timing(
    contestant="resnet18_10.c",
    protocol="memory",
    batch=1,
    threads=1,
    calls=4,
    mean=0.1,
    median=0.1,
    p95=0.1,
    throughput=10.0,
    rounds=(0.1, 0.1),
    against="openvino",
    speedups=(9.0, 9.0),
    speedup=9.0,
    joules=None,
)


def kept(model: nn.Module) -> list[int]:
    return [int(layer.weight.count_nonzero()) for layer in targets(model)]


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8 * 30 * 30, 10)).eval()


def test_masks_keep_the_shares_that_are_asked_for():
    even = model()
    thin(even, same(0.5))
    assert kept(even) == [108, 72, 36000]  # the grouped layer stays dense
    uneven = model()
    thin(uneven, divided(uneven, {"name": "adaptive", "p": 0.0}, 0.01))
    assert sum(kept(uneven)) == int(0.01 * (216 + 72 + 72000))
    blocks = model()
    thin(blocks, published(blocks, {"0": 10, "2": 20, "4": 30}))
    assert kept(blocks) == [10, 20, 30]


@pytest.mark.parametrize(
    ("contestant", "batch", "goal"),
    [
        ("resnet18_10.c", 1, 8.0),
        ("resnet18_10.c", 16, 12.0),
        ("resnet18_500.c", 1, 0.7),
        ("resnet18_100.c", 64, 2.0),
        ("openvino", 1, None),
    ],
)
def test_a_speedup_is_held_against_the_goal_of_its_density(contestant, batch, goal):
    claims = artifact_speed._claims("resnet18", replace(TIMING, contestant=contestant, batch=batch))
    assert [claim.goal for claim in claims] == ([] if goal is None else [goal])


def test_a_share_of_work_is_claimed_from_a_work_ratio_of_eight_on():
    ratios = {60.0: (0.25, 0.15), 20.0: (0.2, 0.45), 7.0: None}
    for ratio, expected in ratios.items():
        # A share is of what is computed, without channels that no logit needs.
        masked = artifact_masks.Masked(
            mask="IGQ", density=0.01, work_ratio=ratio / 2, computed=ratio, path=Path("mask_0.c")
        )
        claims = artifact_masks._claims("resnet18", masked, TIMING)
        assert [(claim.goal, claim.measured) for claim in claims] == ([] if expected is None else [expected])


def reading(stride: int, plan: str, tile: int) -> tuple[int, int]:
    """Return the floats of a channel that a tile of a 3x3 convolution reads, and those of a row of its map."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride, padding=1, bias=False), nn.Flatten()).eval()
    program = lower(simplify(capture(network, torch.rand(1, 3, 32, 32))))
    layout = place(program, UNITS[plan])
    step = next(step for step in program.steps if isinstance(step, Weighted))
    return artifact_layers.cells_of_a_tile(step, layout, tile), layout.maps[step.source].row


def test_a_tile_reads_each_cell_of_its_window_once():
    cells, row = reading(1, "single", 96)
    assert row < 96
    # Rows meet: from one row and a cell before the first sum to one row and a cell behind the last.
    assert cells == 96 + 2 * (row + 1)
    cells, row = reading(1, "block", 96)
    # They do not: three of them, each with a cell of 8 images on both sides.
    assert row > 96 + 2 * 8
    assert cells == 3 * (96 + 2 * 8)
    cells, row = reading(2, "single", 96)
    # Four phases: of 2 x 2, 2 x 1, 1 x 2 and 1 places.
    assert cells == (96 + row + 1) + (96 + row) + (96 + 1) + 96


def test_tiles_are_of_as_many_vectors_as_are_held():
    vectors = artifact_layers.Vectors(lanes=16, most=12, most_dense=6, halves=1)
    tiles = [(8, 8), (9, 16), (192, 192), (193, 112), (1000, 176)]
    assert [vectors.tile(run, dense=False) for run, _ in tiles] == [tile for _, tile in tiles]
    assert [vectors.tile(run, dense=True) for run in (8, 96, 97, 1000)] == [16, 96, 64, 96]
    assert replace(vectors, halves=0).tile(8, dense=False) == 16


def test_the_caches_of_a_core_are_told_or_assumed(tmp_path):
    assert artifact_layers.caches(tmp_path) == artifact_layers.SMALL_CORE
    for number, told in enumerate([("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2048K")]):
        (tmp_path / f"index{number}").mkdir()
        for name, text in zip(("level", "type", "size"), told, strict=True):
            (tmp_path / f"index{number}" / name).write_text(f"{text}\n")
    assert artifact_layers.caches(tmp_path) == (48 * 1024, 2048 * 1024)


@pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C compiler on the path")
def test_the_parts_of_a_pass_add_up(monkeypatch, tmp_path):
    monkeypatch.setattr(artifact_layers, "network", lambda _name, _density: model())
    monkeypatch.setattr(artifact_layers, "LONGEST", 1 << 16)
    [profile] = artifact_layers.measure([artifact_layers.prepare("tiny", 1.0, "block", tmp_path)], rounds=2)
    weighted = [step for step in profile.steps if step.reads is not None]
    assert [step.products for step in weighted] == [216 * 1024 * 8, 72 * 900 * 8, 72000 * 8]
    assert [step.dense for step in weighted] == [True, False, True]
    assert all(0.0 < step.cells <= 1.0 for step in weighted)
    assert sum(step.seconds for step in profile.steps) == pytest.approx(profile.whole, rel=0.2)
    assert min(profile.rates.values()) > 0
    found = artifact_layers.result("tiny", 2, [profile], [profile])
    assert len(found.tables) == 2
    shares = [int(cell.rstrip("%")) for cell in found.tables[0].rows[0][4:]]
    assert sum(shares) == pytest.approx(100, abs=25)
