import copy
import math
import random
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from networks import PACKAGE, Case, agree, networks, package_case, randomise
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from gossamer.deploy import interpret
from gossamer.deploy.capture import capture
from gossamer.deploy.graph import Affine, Clip, Convolution, Graph, Linear, Pad, Pool, Thin, constants
from gossamer.deploy.naming import identifier
from gossamer.errors import ConfigError


class Written(nn.Module):
    """A forward written in the test; layers c: 3 to 4 channels, b: their batch norm, l: 4 to 5 features."""

    def __init__(self, forward: Callable[["Written", Tensor], Tensor]) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.BatchNorm2d(4)
        self.l = nn.Linear(4, 5)
        self.act = nn.SiLU()
        self.register_buffer("count", torch.zeros(()))
        self.written = forward
        randomise(self, seed=3, density=1.0, dead=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


IMAGES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def graph_of(forward: Callable[[Written, Tensor], Tensor]) -> Graph:
    """Return the captured graph, which must give the module's logits."""
    network = Written(forward)
    graph = capture(network, IMAGES)
    assert agree(interpret.run(graph, IMAGES), network(IMAGES), 1e-5)
    return graph


def operations(graph: Graph, kind: type) -> list:
    return [node.operation for node in graph.nodes if isinstance(node.operation, kind)]


def check_shapes(graph: Graph, images: Tensor) -> None:
    shapes = graph.shapes()
    assert {name: tuple(value.shape[1:]) for name, value in interpret.maps(graph, images).items()} == shapes


@pytest.mark.parametrize("name", PACKAGE)
def test_every_network_of_the_package_is_captured(name):
    case, graph = package_case(name)
    images = case.images(2)
    assert agree(interpret.run(graph, images), case.network(images), 1e-5)
    check_shapes(graph, images)


@settings(max_examples=15, deadline=None)
@given(networks())
def test_random_networks_are_captured(case):
    check_capture(case)


@pytest.mark.long
@settings(max_examples=600, deadline=None)
@given(networks())
def test_many_random_networks_are_captured(case):
    check_capture(case)


def check_capture(case: Case) -> None:
    images = case.images().double()
    graph = capture(case.network, case.images(1))
    expected = copy.deepcopy(case.network).double()(images)
    assert agree(interpret.run(graph, images), expected, 1e-5)
    check_shapes(graph, images)
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    for node in graph.nodes:
        for value in constants(node.operation).values():
            assert value.dtype == torch.float32
            assert value.is_contiguous()
            assert not value.requires_grad


def test_steps_are_named_after_their_modules():
    graph = package_case("resnet18")[1]
    names = [node.name for node in graph.nodes]
    expected = "normalize_sub normalize_div conv1 bn1 relu layer1_0_conv1 layer1_0_bn1 layer1_0_relu layer1_0_conv2"
    assert names[:9] == expected.split()
    assert names[-3:] == ["pool", "pool_flat", "fc"]
    assert [node.name for node in graph_of(lambda m, x: m.l(F.relu(F.relu(m.c(x)) + 1).mean((2, 3)))).nodes] == [
        "c",
        "relu",
        "add",
        "relu_2",
        "mean",
        "mean_flat",
        "l",
    ]


def test_identifiers_are_safe_in_every_language():
    assert identifier("layer1.0.conv1") == "layer1_0_conv1"
    assert identifier("0") == "layer_0"
    assert identifier("") == "layer"
    assert identifier("int") == "layer_int"
    assert identifier('a"; system("rm")//\n*/é') == "a_system_rm"
    assert len(identifier("block." * 40 + "conv")) <= 48


def test_a_hostile_module_name_stays_an_identifier():
    network = nn.Sequential()
    network.add_module('x"*/ int é', nn.Flatten())
    network.add_module("image", nn.Linear(4, 2))
    network.add_module("X_INT", nn.Linear(2, 2))
    graph = capture(network, torch.rand(1, 1, 2, 2))
    assert [node.name for node in graph.nodes] == ["image_flat", "image_2", "x_int"]


def test_the_callers_network_stays_as_it_is():
    network = Written(lambda m, x: m.l(F.dropout(m.b(m.c(x)), training=m.training).mean((2, 3))))
    network.train().requires_grad_(True)
    network.c.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    graph = capture(network, IMAGES)
    assert [module.training for module in (network, network.c, network.b)] == [True, False, True]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        network.c.weight.zero_()
    assert all(bool(operation.weight.any()) for operation in operations(graph, Convolution))


@pytest.mark.parametrize("count", [1, 3])
def test_the_number_of_images_in_the_example_does_not_matter(count):
    network = Written(lambda m, x: m.l(m.c(x).mean((2, 3)).view(x.size(0), -1)))
    graph = capture(network, torch.rand(count, 3, 6, 6))
    assert agree(interpret.run(graph, IMAGES), network(IMAGES), 1e-5)


def test_other_precisions_become_float32():
    network = Written(lambda m, x: m.l(m.b(m.c(x)).mean((2, 3)))).double()
    graph = capture(network, IMAGES.double())
    assert agree(interpret.run(graph, IMAGES.double()), network(IMAGES.double()), 1e-5)
    assert operations(graph, Linear)[0].weight.dtype == torch.float32


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (x > 0)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_parametrized_weights_are_baked_and_stay_parametrized():
    network = Written(lambda m, x: m.l(m.c(x).mean((2, 3))))
    parametrize.register_parametrization(network.c, "weight", Halved())
    graph = capture(network, IMAGES)
    assert torch.equal(operations(graph, Convolution)[0].weight, network.c.weight)
    assert parametrize.is_parametrized(network.c, "weight")
    assert graph.nodes[0].name == "c"


def test_weights_that_are_drawn_anew_are_refused():
    network = Written(lambda m, x: m.l(m.c(x).mean((2, 3))))
    parametrize.register_parametrization(network.c, "weight", Noisy())
    with pytest.raises(ConfigError, match="noise-free network"):
        capture(network, IMAGES)


def test_masks_of_torch_prune_are_refused_with_a_remedy():
    network = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    prune.l1_unstructured(network[1], "weight", 0.5)
    with pytest.raises(ConfigError, match=re.escape("prune.remove")):
        capture(network, IMAGES)


def test_batch_norm_is_scale_and_shift():
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.load_state_dict(
        {
            name: torch.tensor([v])
            for name, v in (("weight", 3.0), ("bias", 1.0), ("running_mean", 2.0), ("running_var", 4.0))
        }
        | {"num_batches_tracked": torch.tensor(0)}
    )
    graph = capture(nn.Sequential(norm, nn.Flatten()), torch.rand(1, 1, 2, 2))
    (made,) = operations(graph, Affine)
    assert made.scale.tolist() == [1.5]
    assert made.shift.tolist() == [-2.0]


def test_clips_have_the_bounds_of_their_names():
    def forward(m: Written, x: Tensor) -> Tensor:
        x = F.relu6(F.hardtanh(F.relu(x), -2.0, 3.0).clamp_min(-1.0)).clamp(max=0.5).clip(0.2, 0.7).clamp(0.9, 0.8)
        return m.l(m.c(x).mean((2, 3)))

    inf = math.inf
    assert [(clip.low, clip.high) for clip in operations(graph_of(forward), Clip)] == [
        (0.0, inf),
        (-2.0, 3.0),
        (-1.0, inf),
        (0.0, 6.0),
        (-inf, 0.5),
        (0.2, 0.7),
        (0.8, 0.8),
    ]


def test_margins_of_same_padding_lie_behind_where_they_are_odd():
    network = nn.Sequential(nn.Conv2d(3, 2, (4, 3), padding="same", dilation=(1, 2)), nn.Flatten())
    (made,) = operations(capture(network, IMAGES), Convolution)
    assert made.margins == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("pool", "side", "expected"),
    [
        (nn.MaxPool2d(3, 2, 1), 6, [("max", (1, 0, 1, 0), True)]),
        (nn.MaxPool2d(2, 2, ceil_mode=True), 5, [("max", (0, 1, 0, 1), True)]),
        (nn.AvgPool2d(3, 2, 1), 5, [("mean", (1, 1, 1, 1), True)]),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), 5, [("mean", (1, 1, 1, 1), False)]),
        (nn.AvgPool2d(2, 2, ceil_mode=True), 5, [("mean", (0, 1, 0, 1), False)]),
        (nn.AvgPool2d(3, 2, 1, ceil_mode=True), 6, [("mean", (0, 1, 0, 1), False)]),
        (nn.AdaptiveAvgPool2d((3, 2)), 6, [("mean", (0, 0, 0, 0), True)]),
        (nn.AdaptiveMaxPool2d(3), 6, [("max", (0, 0, 0, 0), True)]),
    ],
)
def test_pools_and_their_margins(pool, side, expected):
    network = nn.Sequential(pool, nn.Flatten())
    images = torch.rand(2, 2, side, side) - 0.5
    graph = capture(network, images)
    pools = operations(graph, Pool)
    # ceil_mode beyond counted padding: the padding is a step of its own, and what lies beyond never counts.
    assert len(operations(graph, Pad)) == (pool.__class__ is nn.AvgPool2d and pool.ceil_mode and pool.padding > 0)
    assert [(made.kind, made.margins, made.counts_margins) for made in pools] == expected
    assert agree(interpret.run(graph, images), network(images), 1e-6)


def test_an_adaptive_pool_repeats_a_single_pixel():
    network = nn.Sequential(nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten())
    images = torch.rand(2, 4, 1, 1)
    assert torch.equal(interpret.run(capture(network, images), images), network(images))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.c(x).mean((2, 3)) @ m.l.weight.T + m.l.bias,
        lambda m, x: torch.addmm(m.l.bias, m.c(x).squeeze().amax((-1, -2)), m.l.weight.t(), beta=2, alpha=0.5),
        lambda m, x: m.l(m.c(x).flatten(2).mean(-1)),
        lambda m, x: m.l(torch.add(*[m.c(x)] * 2).mean((2, 3))),
        lambda m, x: m.l(m.c(x).view(x.shape[0], 4, -1).amax(2)),
        lambda m, x: m.l(m.c(x).mean(2, keepdim=True).mean(3).squeeze(-1)),
        lambda m, x: m.l(torch.cat([torch.zeros_like(x)[:, :1], x], 1).mean((2, 3))),
        lambda m, x: m.l((m.c(x) - 2 * m.c(x).relu() - torch.linspace(-1, 1, 4).view(4, 1, 1)).mean((2, 3))),
        lambda m, x: 1 - m.l((-m.c(x)).mean((2, 3))) / torch.arange(1.0, 6.0),
        lambda m, x: m.l(F.max_pool2d(m.c(x), 2, return_indices=True)[0].mean((2, 3))),
        lambda m, x: m.l(F.adaptive_avg_pool2d(m.c(x), 1).contiguous().clone().to(torch.float32)[:, :, 0:1].flatten(1)),
        lambda m, x: m.c(F.pad(x, (1, 0, 2, 1))[:, :, ::2, ::3]).mean((2, 3)),
        lambda m, x: F.conv2d(m.c(x), torch.ones(5, 4, 6, 6)).flatten(1),
    ],
)
def test_ways_to_write_the_same(forward):
    graph_of(forward)


def test_writes_in_place_are_seen_where_torch_sees_them():
    def chained(m: Written, x: Tensor) -> Tensor:
        y = m.b(m.c(x))
        F.relu_(y)
        y += 1
        return m.l(y.mean((2, 3)))

    def viewed(m: Written, x: Tensor) -> Tensor:
        y = m.b(m.c(x))
        rows = y[:, :, ::2]
        F.relu_(y)
        return m.l(rows.mean((2, 3)) + y.mean((2, 3)))

    assert len(operations(graph_of(chained), Clip)) == 1
    thinned = graph_of(viewed)
    shapes = thinned.shapes()
    (thin,) = [node for node in thinned.nodes if isinstance(node.operation, Thin)]
    assert shapes[thin.name] == (4, 3, 6)


REFUSED: list[tuple[Callable[[Written, Tensor], Tensor], str]] = [
    (lambda m, x: m.l(m.act(m.c(x)).mean((2, 3))), r"aten.silu.default in act: .*replace act"),
    (lambda m, x: m.l((m.c(x) * m.c(x)).mean((2, 3))), r"aten.mul.Tensor in .*forward: expected a constant other"),
    (lambda m, x: m.l((m.c(x) + m.c(x).mean((2, 3), keepdim=True)).mean((2, 3))), "two maps of one shape"),
    (lambda m, x: m.l(m.c(x - x.mean(0, keepdim=True)).mean((2, 3))), "rows, columns or both"),
    (lambda m, x: m.l(m.c(x).mean((2, 3))).flip(0), "aten.flip.default"),
    (lambda m, x: m.l(m.c(x).double().mean((2, 3)).float()), "float32 throughout, got torch.float64"),
    (lambda m, x: m.l(m.c(x).mean((2, 3))) + torch.randn(5), "aten.randn.default .*noise-free twin"),
    (lambda m, x: m.l(F.dropout(m.c(x)).mean((2, 3))), "no dropout in eval mode"),
    (lambda m, x: m.l((m.c(x) + torch.ones(4, 6, 6).tril()).mean((2, 3))), "one constant a channel"),
    (lambda m, x: m.l(F.batch_norm(m.c(x), None, None, training=True).mean((2, 3))), "running statistics"),
    (lambda m, x: m.l(F.pad(m.c(x), (1, 1, 1, 1), mode="reflect").mean((2, 3))), "zeros around rows"),
    (lambda m, x: m.l(F.pad(m.c(x), (1, 1), value=2.0).mean((2, 3))), "zeros around rows"),
    (lambda m, x: m.l(F.adaptive_avg_pool2d(m.c(x), 4).mean((2, 3))), "equal windows, got 4 x 4"),
    (lambda m, x: m.l(F.max_pool2d(m.c(x), 2, dilation=2).mean((2, 3))), "dilation 1"),
    (lambda m, x: m.l(F.avg_pool2d(m.c(x), 2, divisor_override=3).mean((2, 3))), "divisor_override"),
    (lambda m, x: m.l(m.c(x)[:, :, 1::2].mean((2, 3))), "from the first on"),
    (lambda m, x: m.l(m.c(x[:, :2].repeat(1, 2, 1, 1)[:, :3]).mean((2, 3))), "separate convolutions"),
    (lambda m, x: m.l(m.c(x).permute(0, 2, 3, 1)).mean((1, 2)), "aten.permute.default"),
    (lambda m, x: m.l(m.c(x).flatten(2).relu()[:, :, 0]), "aten.select"),
    (lambda m, x: m.c(m.l(m.c(x).mean((2, 3)))[:, :3, None, None]).mean((2, 3)), "separate convolutions"),
    (
        lambda m, x: F.conv2d(m.l(m.c(x).mean((2, 3)))[..., None, None], torch.ones(2, 5, 1, 1)).flatten(1),
        "reshape only",
    ),
    (lambda m, x: m.l(torch.div(m.c(x), 2, rounding_mode="floor").mean((2, 3))), "plain division"),
    (lambda m, x: m.l((m.c(x) / 0.0).clamp(0, 1).mean((2, 3))), "finite constants"),
    (lambda m, x: m.l(torch.cat([x, x], 2)[:, :, :6].mean((2, 3))[:, [0, 1, 2, 0]]), "channels or features"),
    (lambda m, x: m.l(torch.cat([x, torch.ones_like(x)[:, :1]], 1).mean((2, 3))), "append zeros"),
    (lambda m, x: m.l((m.c(x) if x.sum() > 0 else -m.c(x)).mean((2, 3))), "torch.export can trace"),
    (lambda m, x: torch.zeros(len(x), 4), "computed from the image"),
    (lambda m, x: (m.l(m.c(x).mean((2, 3))), x), "one output, .*got a tuple"),
    (lambda m, x: m.c(x), r"logits \(N, classes\), got shape \(2, 4, 6, 6\)"),
    (
        lambda m, x: m.l(m.c(x).mean((2, 3)) + m.count.add_(1)),
        "changes nothing in eval mode, got one that writes count",
    ),
    (lambda m, x: m.l(m.c(x).mean((2, 3))) + random.random(), "logits that differ"),
]


@pytest.mark.parametrize(("forward", "message"), REFUSED)
def test_what_a_graph_cannot_say_is_refused_by_name(forward, message):
    with pytest.raises(ConfigError, match=message):
        capture(Written(forward), IMAGES)


class Counting(nn.Module):
    """A network whose logits depend on how many images there are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * x.shape[0]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_network_that_counts_its_images_is_refused(count):
    with pytest.raises(ConfigError, match="a function of each image alone"):
        capture(Counting(), torch.rand(count, 3, 2, 2))


def test_complex_weights_are_refused_by_name():
    network = Written(lambda m, x: m.l(m.c(x).mean((2, 3))))
    network.register_buffer("phase", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ConfigError, match="export: phase: expected real numbers"):
        capture(network, IMAGES)


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x + y).mean((2, 3))


def test_a_network_of_two_inputs_is_refused():
    with pytest.raises(ConfigError, match="one input"):
        capture(TwoInputs(), IMAGES)


@pytest.mark.parametrize(
    "example", [torch.rand(3, 6, 6), torch.zeros(1, 3, 6, 6, dtype=torch.uint8), torch.rand(0, 3, 6, 6)]
)
def test_an_example_must_be_images(example):
    with pytest.raises(ConfigError, match="export: example"):
        capture(Written(lambda m, x: m.l(m.c(x).mean((2, 3)))), example)


def test_an_example_of_the_wrong_size_is_refused():
    with pytest.raises(ConfigError, match="right size"):
        capture(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), IMAGES)
