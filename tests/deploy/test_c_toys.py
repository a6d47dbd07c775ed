"""Toy networks as C, with outputs computed by hand."""

import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from c_code import made, needs_compiler
from networks import chain
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from gossamer.deploy.csource import Compiled
from gossamer.deploy.graph import (
    Add,
    Affine,
    Clip,
    Concatenate,
    Convolution,
    Flatten,
    Graph,
    Linear,
    Node,
    Operation,
    Pad,
    Pool,
    Thin,
)

pytestmark = needs_compiler

ROW = torch.arange(1.0, 4.0).view(1, 1, 1, 3)
SQUARE = torch.arange(1.0, 10.0).view(1, 1, 3, 3)


def logits(network: Compiled, x: Tensor) -> list[float]:
    """Return what both plans compute of one image; they must agree."""
    (one,), block = network(x), network(x.expand(16, -1, -1, -1))
    assert torch.equal(block, one.expand(16, -1))
    return one.tolist()


def computed(folder: Path, x: Tensor, *operations: Operation) -> list[float]:
    return logits(made(chain(tuple(x.shape[1:]), *operations, Flatten()), folder), x)


def convolution(weight: Tensor, bias: float = 0.0, **options: object) -> Convolution:
    return Convolution(weight=weight, bias=torch.full((len(weight),), bias), **options)  # type: ignore[arg-type]


def test_a_sparse_weight_reads_its_neighbour_and_zero_outside(tmp_path: Path) -> None:
    left = torch.zeros(1, 1, 1, 3)
    left[..., 0] = 2.0
    assert computed(tmp_path, ROW, convolution(left, 0.5, margins=(0, 0, 1, 1))) == [0.5, 2.5, 4.5]


def test_a_dense_window_sums_its_neighbours(tmp_path: Path) -> None:
    ones = convolution(torch.ones(1, 1, 3, 3), margins=(1, 1, 1, 1))
    assert computed(tmp_path, SQUARE, ones) == [12.0, 21.0, 16.0, 27.0, 45.0, 33.0, 24.0, 39.0, 28.0]


def test_strides_and_dilations_read_every_other_cell(tmp_path: Path) -> None:
    strided = convolution(torch.ones(1, 1, 1, 1), stride=(2, 2))
    assert computed(tmp_path, SQUARE, strided) == [1.0, 3.0, 7.0, 9.0]
    dilated = convolution(torch.ones(1, 1, 2, 2), dilation=(2, 2))
    assert computed(tmp_path, SQUARE, dilated) == [20.0]
    both = convolution(torch.ones(1, 1, 2, 2), stride=(2, 1), margins=(1, 0, 0, 0))
    assert computed(tmp_path, SQUARE, both) == [3.0, 5.0, 24.0, 28.0]


def test_groups_read_their_own_channels(tmp_path: Path) -> None:
    x = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(1, 4, 1, 1)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(2, 2, 1, 1)
    assert computed(tmp_path, x, convolution(weight, groups=2)) == [21.0, 4300.0]


def test_a_layer_without_weights_gives_its_bias(tmp_path: Path) -> None:
    assert computed(tmp_path, ROW, convolution(torch.zeros(2, 1, 1, 3), 0.25)) == [0.25, 0.25]


def test_clips_pools_thinning_and_padding(tmp_path: Path) -> None:
    assert computed(tmp_path, SQUARE - 5, Clip(low=-1.0, high=2.0)) == [-1, -1, -1, -1, 0, 1, 2, 2, 2]
    assert computed(tmp_path, -SQUARE, Clip(low=0.0, high=math.inf)) == [0.0] * 9
    affine = Affine(scale=torch.tensor([2.0]), shift=torch.tensor([-1.0]))
    assert computed(tmp_path, ROW, affine) == [1.0, 3.0, 5.0]
    largest = Pool(kind="max", window=(2, 2), stride=(2, 2), margins=(1, 0, 1, 0))
    assert computed(tmp_path, -SQUARE, largest) == [-1.0, -2.0, -4.0, -5.0]
    mean = Pool(kind="mean", window=(2, 2), stride=(2, 2), margins=(1, 0, 1, 0))
    assert computed(tmp_path, SQUARE, mean) == [0.25, 1.25, 2.75, 7.0]
    within = Pool(kind="mean", window=(2, 2), stride=(2, 2), margins=(1, 0, 1, 0), counts_margins=False)
    assert computed(tmp_path, SQUARE, within) == [1.0, 2.5, 5.5, 7.0]
    assert computed(tmp_path, SQUARE, Thin(step=(2, 1))) == [1, 2, 3, 7, 8, 9]
    padded = Pad(channels=(1, 0), margins=(0, 1, 1, 0))
    assert computed(tmp_path, ROW, padded) == [0.0] * 8 + [0, 1, 2, 3, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_pools_of_four_cells_match_those_of_torch(kind: Literal["max", "mean"], tmp_path: Path) -> None:
    x = torch.randn(1, 2, 5, 63, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0, 0], x[0, 0, 1, 3], x[0, 0, 2, 1], x[0, 0, 3, 4] = [torch.nan] * 4
    x[0, 1, 2, 60], x[0, 1, :2, 2:4] = -math.inf, -math.inf
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    flat = Pool(kind=kind, window=(2, 2), stride=(2, 2))
    for width in (2, 5, 8, 14, 17, 31, 63):
        network = made(chain((2, 5, width), flat, Flatten()), tmp_path / str(width))
        (one,), block = network(x[..., :width]), network(x[..., :width].expand(16, -1, -1, -1))
        assert_close(one, pool(x[..., :width], 2).flatten(), equal_nan=True)
        assert_close(block, one.expand(16, -1), equal_nan=True)


def branches(last: Operation, shape: tuple[int, ...]) -> Graph:
    """Return a network of 2x and 3x of one image that `last` brings together."""
    nodes = [
        Node(name=f"times {factor}", operation=convolution(torch.full((1, 1, 1, 1), factor)), inputs=["x"], shape=shape)
        for factor in (2.0, 3.0)
    ]
    joined = (shape[0] * (1 + isinstance(last, Concatenate)), *shape[1:])
    cut = Node(name="cut", operation=Clip(low=-math.inf, high=10.0), inputs=["joined"], shape=joined)
    flat = Node(name="flat", operation=Flatten(), inputs=["cut"], shape=(math.prod(joined),))
    together = Node(name="joined", operation=last, inputs=["times 2.0", "times 3.0"], shape=joined)
    return Graph(input="x", shape=shape, nodes=[*nodes, together, cut, flat], output="flat")


def test_sums_are_added_and_maps_joined(tmp_path: Path) -> None:
    assert logits(made(branches(Add(), (1, 1, 3)), tmp_path), ROW) == [5.0, 10.0, 10.0]
    assert logits(made(branches(Concatenate(), (1, 1, 3)), tmp_path), ROW) == [2, 4, 6, 3, 6, 9]


def test_features_are_weighted(tmp_path: Path) -> None:
    first = Linear(weight=torch.tensor([[1.0, 0.0, -1.0], [1.0, 1.0, 1.0]]), bias=torch.tensor([0.0, 1.0]))
    second = Linear(weight=torch.tensor([[2.0, 1.0]]), bias=torch.tensor([0.5]))
    graph = chain((1, 1, 3), Flatten(), first, second)
    assert logits(made(graph, tmp_path), ROW) == [3.5]


def test_int8_and_signs_compute_with_rounded_weights(tmp_path: Path) -> None:
    weight = torch.tensor([127.0, 1.4, -60.0]).view(1, 1, 1, 3) * 0.5
    (got,) = logits(made(chain((1, 1, 3), convolution(weight), Flatten()), tmp_path, "int8"), ROW)
    assert got == (127 + 2 * 1 - 3 * 60) * 0.5
    signs = torch.tensor([0.5, 0.0, -0.5]).view(1, 1, 1, 3)
    assert logits(made(chain((1, 1, 3), convolution(signs), Flatten()), tmp_path, "signs"), ROW) == [-1.0]
