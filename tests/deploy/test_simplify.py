import math

import pytest
import torch
from hypothesis import given, settings
from networks import PACKAGE, Case, agree, chain, networks, package_case, randomise
from torch import Tensor, nn

from gossamer.deploy import interpret
from gossamer.deploy.capture import capture
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
    constants,
)
from gossamer.deploy.simplify import simplify
from gossamer.errors import ConfigError

RELU = Clip(low=0.0, high=math.inf)


def affine(scale: list[float], shift: list[float]) -> Affine:
    return Affine(scale=torch.tensor(scale), shift=torch.tensor(shift))


def pointwise(weight: list[list[float]], bias: list[float], **options: object) -> Convolution:
    """Return a 1x1 convolution. weight: (out, in)."""
    return Convolution(weight=torch.tensor(weight)[:, :, None, None], bias=torch.tensor(bias), **options)


def linear(weight: list[list[float]], bias: list[float]) -> Linear:
    return Linear(weight=torch.tensor(weight), bias=torch.tensor(bias))


def kinds(graph: Graph) -> list[str]:
    return [type(node.operation).__name__ for node in graph.nodes]


def found(graph: Graph, name: str) -> Operation:
    return next(node.operation for node in graph.nodes if node.name == name)


def channels(graph: Graph) -> dict[str, int]:
    return {node.name: node.shape[0] for node in graph.nodes}


def check_same(graph: Graph, count: int = 4) -> Graph:
    """Simplify, and compare logits of random images and the shapes of all maps."""
    smaller = simplify(graph)
    images = torch.rand(count, *graph.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) - 0.3
    assert agree(interpret.run(smaller, images), interpret.run(graph, images), 1e-5)
    made = {name: tuple(value.shape[1:]) for name, value in interpret.maps(smaller, images).items()}
    assert made == smaller.shapes()
    assert all(0 not in shape for shape in made.values())
    assert all(value.dtype == torch.float32 for node in smaller.nodes for value in constants(node.operation).values())
    return smaller


def check_case(case: Case) -> None:
    smaller = check_same(capture(case.network, case.images(1)))
    assert kinds(simplify(smaller)) == kinds(smaller)


@settings(max_examples=20, deadline=None)
@given(networks())
def test_random_networks_stay_the_same(case):
    check_case(case)


@pytest.mark.long
@settings(max_examples=600, deadline=None)
@given(networks())
def test_many_random_networks_stay_the_same(case):
    check_case(case)


@pytest.mark.parametrize("name", PACKAGE)
def test_every_network_of_the_package_stays_the_same(name):
    smaller = check_same(package_case(name)[1], 2)
    left = kinds(smaller).count("Affine")
    # Batch norms behind a sum (of 12, 3 and 8 blocks, and the last), or behind a convolution that a shortcut reads too,
    # have nowhere to go; nor have pixels normalised before a convolution with margins.
    expected = {"resnet18": 1, "wideresnet28": 12 + 1 + 1, "wideresnet": 3 + 1, "preact-resnet18": 8 + 1}
    assert left == expected.get(name, 0)


def test_an_affine_folds_into_the_layer_before():
    graph = chain((1, 1, 1), pointwise([[2.0], [3.0]], [1.0, -1.0]), affine([10.0, 0.5], [5.0, 0.25]), Flatten())
    smaller = check_same(graph)
    assert kinds(smaller) == ["Convolution", "Flatten"]
    assert found(smaller, "a").weight.flatten().tolist() == [20.0, 1.5]
    assert found(smaller, "a").bias.tolist() == [15.0, -0.25]


def test_an_affine_folds_into_grouped_layers_and_logits():
    depth_wise = Convolution(weight=torch.ones(4, 1, 1, 1), bias=torch.zeros(4), groups=2)
    graph = chain(
        (2, 1, 1), depth_wise, affine([1.0, 2.0, 3.0, 4.0], [0.0] * 4), Flatten(), affine([2.0] * 4, [1.0] * 4)
    )
    smaller = check_same(graph)
    assert kinds(smaller) == ["Convolution", "Flatten"]
    assert found(smaller, "a").weight.flatten().tolist() == [2.0, 4.0, 6.0, 8.0]
    assert found(smaller, "a").bias.tolist() == [1.0] * 4
    assert smaller.output == "d"


def test_an_affine_stays_where_its_source_has_another_reader():
    nodes = (
        Node(name="a", operation=pointwise([[2.0]], [0.0]), inputs=("image",), shape=(1, 1, 1)),
        Node(name="b", operation=affine([3.0], [1.0]), inputs=("a",), shape=(1, 1, 1)),
        Node(name="c", operation=Concatenate(), inputs=("a", "b"), shape=(2, 1, 1)),
        Node(name="d", operation=Flatten(), inputs=("c",), shape=(2,)),
    )
    assert kinds(check_same(Graph(input="image", shape=(1, 1, 1), nodes=nodes, output="d"))) == [
        "Convolution",
        "Affine",
        "Concatenate",
        "Flatten",
    ]


def test_affines_in_a_row_and_before_a_layer_fold():
    graph = chain(
        (2, 1, 1),
        affine([2.0, 1.0], [1.0, 0.0]),
        affine([3.0, 1.0], [1.0, 5.0]),
        pointwise([[1.0, 10.0]], [7.0]),
        Flatten(),
    )
    smaller = check_same(graph)
    assert kinds(smaller) == ["Convolution", "Flatten"]
    assert found(smaller, "c").weight.flatten().tolist() == [6.0, 10.0]
    assert found(smaller, "c").bias.tolist() == [7.0 + 4.0 + 50.0]


def test_an_affine_folds_through_a_flatten_into_a_linear_layer():
    graph = chain((2, 1, 2), affine([2.0, 3.0], [1.0, -1.0]), Flatten(), linear([[1.0, 2.0, 3.0, 4.0]] * 2, [0.0, 1.0]))
    smaller = check_same(graph)
    assert kinds(smaller) == ["Flatten", "Linear"]
    assert found(smaller, "c").weight.tolist() == [[2.0, 4.0, 9.0, 12.0]] * 2
    assert found(smaller, "c").bias.tolist() == [3.0 - 7.0, 3.0 - 7.0 + 1.0]


@pytest.mark.parametrize(("shift", "stays"), [(1.0, True), (0.0, False)])
def test_a_shift_stays_before_margins_and_a_scale_does_not(shift, stays):
    graph = chain((1, 3, 3), affine([2.0], [shift]), pointwise([[4.0]], [0.0], margins=(1, 1, 1, 1)), Flatten())
    smaller = check_same(graph)
    assert ("Affine" in kinds(smaller)) == stays
    assert found(smaller, "b").weight.item() == (4.0 if stays else 8.0)


def test_folds_are_rounded_once():
    third = torch.tensor([1 / 3])
    steps = [Affine(scale=third, shift=third) for _ in range(5)]
    smaller = simplify(chain((1, 1, 1), *steps, Flatten()))
    scale = third.double() ** 5
    assert torch.equal(found(smaller, "a").scale, scale.float())


def test_a_fold_beyond_float32_is_refused():
    graph = chain((1, 1, 1), affine([1e30], [0.0]), affine([1e30], [0.0]), Flatten())
    with pytest.raises(ConfigError, match="scale of a: expected folded constants within float32"):
        simplify(graph)


def test_what_changes_nothing_goes():
    graph = chain(
        (1, 4, 4),
        Clip(low=-math.inf, high=math.inf),
        Thin(step=(1, 1)),
        Pad(),
        Pool(kind="mean", window=(1, 1), stride=(1, 1)),
        affine([1.0], [0.0]),
        Thin(step=(2, 1)),
        Thin(step=(1, 2)),
        Flatten(),
    )
    smaller = check_same(graph)
    assert kinds(smaller) == ["Thin", "Flatten"]
    assert found(smaller, smaller.nodes[0].name).step == (2, 2)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, math.inf), (0.0, math.inf), (0.0, math.inf)),
        ((0.0, math.inf), (-1.0, 6.0), (0.0, 6.0)),
        ((0.0, 1.0), (2.0, 3.0), (2.0, 2.0)),
    ],
)
def test_clips_in_a_row_are_one(first, second, expected):
    graph = chain((1, 2, 2), Clip(low=first[0], high=first[1]), Clip(low=second[0], high=second[1]), Flatten())
    smaller = check_same(graph)
    assert kinds(smaller) == ["Clip", "Flatten"]
    assert (found(smaller, "a").low, found(smaller, "a").high) == expected


def test_zeros_around_a_map_become_margins():
    graph = chain((1, 2, 2), Pad(margins=(1, 0, 2, 0)), pointwise([[1.0]], [0.5], margins=(0, 1, 0, 1)), Flatten())
    smaller = check_same(graph)
    assert kinds(smaller) == ["Convolution", "Flatten"]
    assert found(smaller, "b").margins == (1, 1, 2, 1)


def test_dead_channels_go_with_their_constants():
    # Channel 0 lives; 1 is the constant relu(2) = 2; 2 is relu(-3) = 0; 3 lives, but nobody weighs it.
    graph = chain(
        (1, 2, 2),
        pointwise([[1.0], [0.0], [0.0], [5.0]], [0.0, 2.0, -3.0, 0.0]),
        RELU,
        pointwise([[1.0, 10.0, 7.0, 0.0], [2.0, 20.0, 7.0, 0.0]], [0.5, 0.25]),
        Flatten(),
    )
    smaller = check_same(graph)
    assert channels(smaller) == {"a": 1, "b": 1, "c": 2, "d": 8}
    assert found(smaller, "c").weight.flatten().tolist() == [1.0, 2.0]
    assert found(smaller, "c").bias.tolist() == [20.5, 40.25]


def test_margins_hold_no_constant_but_zero():
    wide = Convolution(weight=torch.ones(1, 3, 3, 3), bias=torch.zeros(1), margins=(1, 1, 1, 1))
    graph = chain((1, 3, 3), pointwise([[1.0], [0.0], [0.0]], [0.0, 2.0, -3.0]), RELU, wide, Flatten())
    smaller = check_same(graph)
    assert channels(smaller) == {"a": 2, "b": 2, "c": 1, "d": 9}


def test_dead_channels_go_through_pools_flattens_and_depth_wise_convolutions():
    depth_wise = Convolution(
        weight=torch.ones(6, 1, 3, 3), bias=torch.arange(6.0), margins=(1, 1, 1, 1), groups=3, stride=(2, 2)
    )
    graph = chain(
        (1, 4, 4),
        pointwise([[1.0], [0.0], [2.0]], [1.0, -1.0, 0.0]),
        RELU,
        depth_wise,
        Pool(kind="max", window=(2, 2), stride=(1, 1), margins=(0, 1, 0, 1)),
        Flatten(),
        Linear(weight=torch.ones(2, 24), bias=torch.zeros(2)),
    )
    smaller = check_same(graph)
    assert channels(smaller) == {"a": 2, "b": 2, "c": 4, "d": 4, "e": 16, "f": 2}
    assert found(smaller, "c").groups == 2
    # The zero channel left 2 and 3 in all four pixels.
    assert found(smaller, "f").bias.tolist() == [20.0, 20.0]


def test_grouped_convolutions_keep_their_channels():
    grouped = Convolution(weight=torch.ones(2, 2, 1, 1), bias=torch.zeros(2), groups=2)
    graph = chain((1, 2, 2), pointwise([[1.0], [0.0], [2.0], [0.0]], [0.0] * 4), grouped, Flatten())
    assert channels(check_same(graph)) == {"a": 4, "b": 2, "c": 8}


def sum_of(left: list[list[float]], right: list[list[float]], *, bias: list[float]) -> Graph:
    last = Convolution(weight=torch.ones(2, 2, 3, 3), bias=torch.zeros(2), margins=(1, 1, 1, 1))
    nodes = (
        Node(name="a", operation=pointwise(left, [0.0, 0.0]), inputs=("image",), shape=(2, 3, 3)),
        Node(name="b", operation=pointwise(right, bias), inputs=("image",), shape=(2, 3, 3)),
        Node(name="c", operation=Add(), inputs=("a", "b"), shape=(2, 3, 3)),
        Node(name="d", operation=RELU, inputs=("c",), shape=(2, 3, 3)),
        Node(name="e", operation=last, inputs=("d",), shape=(2, 3, 3)),
        Node(name="f", operation=Flatten(), inputs=("e",), shape=(18,)),
    )
    return Graph(input="image", shape=(1, 3, 3), nodes=nodes, output="f")


def test_a_channel_of_a_sum_goes_where_all_summands_agree():
    both = check_same(sum_of([[1.0], [0.0]], [[2.0], [0.0]], bias=[0.0, -1.0]))
    assert channels(both) == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 18}
    one = check_same(sum_of([[1.0], [3.0]], [[2.0], [0.0]], bias=[0.0, -1.0]))
    assert channels(one) == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 2, "f": 18}


def test_a_constant_summand_becomes_a_shift():
    smaller = check_same(sum_of([[1.0], [3.0]], [[0.0], [0.0]], bias=[2.0, 0.0]))
    assert kinds(smaller) == ["Convolution", "Clip", "Convolution", "Flatten"]
    assert found(smaller, "a").bias.tolist() == [2.0, 0.0]


def test_a_map_added_to_itself_loses_channels_as_one():
    nodes = (
        Node(name="a", operation=pointwise([[1.0], [0.0]], [0.0, 3.0]), inputs=("image",), shape=(2, 2, 2)),
        Node(name="b", operation=Add(), inputs=("a", "a"), shape=(2, 2, 2)),
        Node(name="c", operation=pointwise([[1.0, 1.0]], [0.0]), inputs=("b",), shape=(1, 2, 2)),
        Node(name="d", operation=Flatten(), inputs=("c",), shape=(4,)),
    )
    smaller = check_same(Graph(input="image", shape=(1, 2, 2), nodes=nodes, output="d"))
    assert channels(smaller) == {"a": 1, "b": 1, "c": 1, "d": 4}
    assert found(smaller, "c").bias.tolist() == [6.0]


def test_a_concatenation_loses_dead_parts_and_a_pad_dead_zeros():
    nodes = (
        Node(name="a", operation=pointwise([[0.0]], [4.0]), inputs=("image",), shape=(1, 2, 2)),
        Node(name="b", operation=Concatenate(), inputs=("a", "image", "a"), shape=(3, 2, 2)),
        Node(name="c", operation=Pad(channels=(1, 2)), inputs=("b",), shape=(6, 2, 2)),
        Node(
            name="d",
            operation=pointwise([[9.0, 1.0, 2.0, 3.0, 9.0, 9.0]] * 2, [0.0, 1.0]),
            inputs=("c",),
            shape=(2, 2, 2),
        ),
        Node(name="e", operation=Flatten(), inputs=("d",), shape=(8,)),
    )
    smaller = check_same(Graph(input="image", shape=(1, 2, 2), nodes=nodes, output="e"))
    assert kinds(smaller) == ["Convolution", "Flatten"]
    assert found(smaller, "d").weight.flatten().tolist() == [2.0, 2.0]
    assert found(smaller, "d").bias.tolist() == [16.0, 17.0]


def test_a_network_of_density_zero_is_its_bias():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3)
    )
    randomise(network, seed=1, density=0.0, dead=0.0)
    with torch.no_grad():
        network[0].weight.zero_()
        network[4].weight.zero_()
        network[4].bias.copy_(torch.tensor([1.0, -2.0, 0.5]))
    smaller = check_same(capture(network, torch.rand(1, 3, 5, 5)))
    assert [node.name for node in smaller.nodes] == ["layer_4_mean", "layer_4_flat", "layer_4"]
    assert kinds(smaller) == ["Pool", "Flatten", "Linear"]
    assert smaller.nodes[2].operation.weight.tolist() == [[0.0] * 3] * 3
    assert smaller.nodes[2].operation.bias.tolist() == [1.0, -2.0, 0.5]


def test_logits_that_vary_inside_but_not_with_the_image_are_a_bias():
    # The dead first layer gives 2 everywhere; margins then make the border of the second differ from its middle.
    wide = Convolution(weight=torch.ones(1, 1, 3, 3), bias=torch.zeros(1), margins=(1, 1, 1, 1))
    graph = chain((1, 3, 3), pointwise([[0.0]], [2.0]), wide, Flatten())
    smaller = check_same(graph)
    assert kinds(smaller) == ["Pool", "Flatten", "Linear"]
    assert smaller.nodes[2].operation.bias.tolist() == [8.0, 12.0, 8.0, 12.0, 18.0, 12.0, 8.0, 12.0, 8.0]


def test_a_one_pixel_network_of_density_zero_ends():
    smaller = check_same(chain((2, 1, 1), pointwise([[0.0, 0.0]] * 2, [1.0, 2.0]), Flatten()))
    assert kinds(smaller) == ["Flatten", "Linear"]


def test_a_branch_that_cannot_fold_keeps_a_channel():
    # The dead branch gives 2 all over, which margins turn into a map that no bias can hold.
    wide = Convolution(weight=torch.ones(1, 2, 3, 3), bias=torch.zeros(1), margins=(1, 1, 1, 1))
    nodes = (
        Node(name="a", operation=pointwise([[1.0], [2.0]], [0.0, 0.0]), inputs=("image",), shape=(2, 3, 3)),
        Node(name="b", operation=pointwise([[0.0, 0.0]] * 2, [2.0, 2.0]), inputs=("a",), shape=(2, 3, 3)),
        Node(name="c", operation=wide, inputs=("b",), shape=(1, 3, 3)),
        Node(name="d", operation=Add(), inputs=("c", "image"), shape=(1, 3, 3)),
        Node(name="e", operation=Flatten(), inputs=("d",), shape=(9,)),
    )
    smaller = check_same(Graph(input="image", shape=(1, 3, 3), nodes=nodes, output="e"))
    assert channels(smaller) == {"a": 1, "b": 2, "c": 1, "d": 1, "e": 9}


def test_steps_that_nobody_reads_go():
    nodes = (
        Node(name="a", operation=RELU, inputs=("image",), shape=(1, 2, 2)),
        Node(name="b", operation=Flatten(), inputs=("image",), shape=(4,)),
    )
    smaller = check_same(Graph(input="image", shape=(1, 2, 2), nodes=nodes, output="b"))
    assert [node.name for node in smaller.nodes] == ["b"]


def test_the_given_graph_stays_as_it_is():
    graph = chain((1, 2, 2), pointwise([[1.0], [0.0]], [0.0, 1.0]), affine([2.0, 2.0], [1.0, 1.0]), RELU, Flatten())
    before: list[Tensor] = [value.clone() for node in graph.nodes for value in constants(node.operation).values()]
    simplify(graph)
    after = [value for node in graph.nodes for value in constants(node.operation).values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
