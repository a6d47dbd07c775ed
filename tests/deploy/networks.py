"""Small random networks that exporters must get right, as a hypothesis strategy; and the package's own, captured once.

`networks()` draws a `Case`: a module in eval mode with random weights and batch-norm statistics, and its image's shape.
A case has one to four blocks and a head. Blocks: convolutions (kernels 1 to 3 by 1 to 3, strides and dilations a side,
"same", symmetric and no padding, groups, depth-wise with one or two outputs a channel, with and without bias, batch
norm with and without its own scale, ReLU, ReLU6 or another clip), residual sums (identity, projection or option-A
shortcut, pre-activation, inverted), concatenations, max and mean pools (ceil_mode, with and without counted padding),
zero padding, thinning and arithmetic with constants. Heads: flattened, pooled or averaged features with one or two
linear layers, or a 1x1 convolution pooled at the end; a batch norm over the logits at times. Images have 1 or 3
channels and sides of 5 to 11, or those asked for. Weights are kept at a density of 0 to 1 that varies over layers;
whole outputs, whole inputs and scales of batch norm are likely zero, so that dead and constant channels abound.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from gossamer.deploy import interpret
from gossamer.deploy.capture import capture
from gossamer.deploy.graph import Add, Clip, Convolution, Flatten, Graph, Node, Operation
from gossamer.models import MODELS, Normalize, build
from gossamer.models.layers import SubsamplePad

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]

# Options that make the package's networks small, and the side of their images where it is not 16.
OPTIONS: dict[str, dict[str, Any]] = {
    "resnet18": {"width": 0.125, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)},
    "resnet34": {"width": 0.125, "stem": "imagenet", "image_size": 32},
    "resnet50": {"width": 0.125},
    "wideresnet20": {"width": 1, "shortcut": "B"},
    "wideresnet28": {"width": 1, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)},
    "wideresnet": {"depth": 10, "width": 1},
    "vgg16": {"last_batch_norm": True},
    "vgg16-imagenet": {"head": "single", "image_size": 32},
    "preact-resnet18": {"width": 0.125, "last_batch_norm": True},
}


@dataclass(frozen=True)
class Case:
    """A network in eval mode and the shape (C, H, W) of its images."""

    network: nn.Module
    shape: Shape

    def images(self, count: int = 3, seed: int = 0) -> Tensor:
        """Return images (count, C, H, W) in [0, 1]."""
        return torch.rand(count, *self.shape, generator=torch.Generator().manual_seed(seed))

    def __repr__(self) -> str:
        return f"Case(shape={self.shape}, network={self.network})"


@functools.cache
def package_case(name: str, density: float = 1.0) -> tuple[Case, Graph]:
    """Return a small variant of the package's network of that name with random statistics, and its graph."""
    options = {"image_size": 16, **OPTIONS.get(name, {})}
    if name in ("vgg16", "digits-cnn"):
        del options["image_size"]
    network = build(name, num_classes=10, **options)
    randomise(network, seed=len(name), density=density, dead=0.0)
    side = {"vgg16": 32, "digits-cnn": 8}.get(name, options.get("image_size"))
    case = Case(network, (1 if name == "digits-cnn" else 3, side, side))
    return case, capture(network, case.images(1))


def narrow(channels: int, outputs: int, side: int, density: float) -> Graph:
    """Return a network of small maps: many channels, of whose weights so many are kept, then as many of its outputs.

    What the first layer makes is added to what the second does, and clipped.
    """
    random = torch.Generator().manual_seed(0)

    def kept(*shape: int, share: float) -> Convolution:
        weight = torch.randn(*shape, generator=random) / (shape[1] * share) ** 0.5
        weight *= torch.rand(shape, generator=random) < share
        return Convolution(weight=weight, bias=torch.randn(shape[0], generator=random), margins=(1, 1, 1, 1))

    made = (outputs, side, side)
    nodes = [
        Node(name="many", operation=kept(outputs, channels, 3, 3, share=density), inputs=["x"], shape=made),
        Node(name="few", operation=kept(outputs, outputs, 3, 3, share=0.3), inputs=["many"], shape=made),
        Node(name="sum", operation=Add(), inputs=["few", "many"], shape=made),
        Node(name="clip", operation=Clip(low=0.0, high=2.0), inputs=["sum"], shape=made),
        Node(name="flat", operation=Flatten(), inputs=["clip"], shape=(outputs * side * side,)),
    ]
    return Graph(input="x", shape=(channels, side, side), nodes=nodes, output="flat")


PACKAGE = tuple(MODELS)


def chain(shape: Shape, *operations: Operation) -> Graph:
    """Return the graph of steps a, b, c, ... one after the other on images of this shape."""
    nodes: list[Node] = []
    value = torch.zeros(1, *shape)
    before = "image"
    for name, operation in zip("abcdefghijklmnop", operations, strict=False):
        value = interpret.apply(operation, [value])
        nodes.append(Node(name=name, operation=operation, inputs=(before,), shape=tuple(value.shape[1:])))
        before = name
    return Graph(input="image", shape=shape, nodes=nodes, output=before)


class Sum(nn.Module):
    """body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Joined(nn.Module):
    """Branches one behind the other along channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=-3)


class Clamp(nn.Module):
    """x between two bounds, or above one."""

    def __init__(self, low: float, high: float | None) -> None:
        super().__init__()
        self.bounds = low, high

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(*self.bounds)


class Thinned(nn.Module):
    """Every so many rows and columns."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.rows, :: self.columns]


class Arithmetic(nn.Module):
    """Constants added, subtracted, multiplied and divided, per channel and for all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("factor", torch.linspace(-1, 1.5, channels).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (1 - x * self.get_buffer("factor")) / 1.5 + 0.25


class Averaged(nn.Module):
    """The mean of every map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


USUAL = st.integers(5, 11)


@st.composite
def networks(draw: Draw, *, most_blocks: int = 4, sides: st.SearchStrategy[int] = USUAL) -> Case:
    """Draw a case; see the top of this file."""
    shape = (draw(st.sampled_from([1, 3])), draw(sides), draw(sides))
    layers: list[nn.Module] = []
    if draw(st.booleans()):
        layers.append(Normalize(shape[0], mean=[0.4] * shape[0], std=[0.3] * shape[0]))
    current = shape
    for _ in range(draw(st.integers(1, most_blocks))):
        layers.append(draw(st.sampled_from(BLOCKS))(draw, current))
        current = shape_behind(layers[-1], current)
    layers.extend(_head(draw, current))
    network = nn.Sequential(*layers)
    seed = draw(st.integers(0, 2**31 - 1))
    density = draw(st.sampled_from([1.0, 0.7, 0.4, 0.1, 0.0]))
    randomise(network, seed=seed, density=density, dead=draw(st.sampled_from([0.0, 0.2, 0.5])))
    return Case(network, shape)


def shape_behind(layer: nn.Module, shape: Shape) -> Shape:
    """Return what shape a layer makes of one image's."""
    with torch.no_grad(), warnings.catch_warnings():
        # torch says once that it copies the map for "same" with even kernels.
        warnings.simplefilter("ignore")
        return tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])


@torch.no_grad()
def randomise(network: nn.Module, *, seed: int, density: float, dead: float) -> None:
    """Give a network random weights and batch-norm statistics, and put it in eval mode without gradients.

    density: chance of a weight not to be zero; every fifth layer is dense. dead: chance of an output, an input or a
    scale of a batch norm to be zero altogether; a sixth of it that a whole layer is. Others keep one weight at least.
    """
    draws = torch.Generator().manual_seed(seed)
    for module in network.eval().requires_grad_(False).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _randomise_weights(module, draws, density, dead)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _randomise_norm(module, draws, dead)


def agree(got: Tensor, expected: Tensor, share: float) -> bool:
    """Return whether no logit differs by more than this share of the largest one."""
    return float((got - expected).abs().max()) <= share * max(float(expected.abs().max()), 1e-2)


def _randomise_weights(layer: nn.Conv2d | nn.Linear, draws: torch.Generator, density: float, dead: float) -> None:
    weight = layer.weight
    chance = torch.rand((), generator=draws)
    density = 0.0 if chance < dead / 6 else 1.0 if chance > 0.8 else density
    kept = torch.rand(weight.shape, generator=draws) < density
    kept &= _alive(len(weight), draws, dead).view(-1, *[1] * (weight.ndim - 1))
    kept &= _alive(weight.shape[1], draws, dead).view(1, -1, *[1] * (weight.ndim - 2))
    if density > 0:
        kept.view(-1)[int(torch.randint(kept.numel(), (), generator=draws))] = True
    spread = (2 / weight[0].numel()) ** 0.5
    weight.copy_(torch.randn(weight.shape, generator=draws) * spread * kept)
    if layer.bias is not None:
        given = torch.rand(len(weight), generator=draws) < 0.6
        layer.bias.copy_(torch.randn(len(weight), generator=draws) * given)


def _randomise_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, draws: torch.Generator, dead: float) -> None:
    norm.running_mean.copy_(torch.randn(norm.num_features, generator=draws) * 0.5)
    norm.running_var.copy_(torch.rand(norm.num_features, generator=draws) + 0.5)
    if norm.affine:
        alive = _alive(norm.num_features, draws, dead)
        norm.weight.copy_((torch.randn(norm.num_features, generator=draws) * 0.3 + 1) * alive)
        norm.bias.copy_(torch.randn(norm.num_features, generator=draws) * 0.5)


def _alive(count: int, draws: torch.Generator, dead: float) -> Tensor:
    alive = torch.rand(count, generator=draws) >= dead
    alive[int(torch.randint(count, (), generator=draws))] = True
    return alive


def _activation(draw: Draw) -> nn.Module:
    kinds: list[Callable[[], nn.Module]] = [
        nn.ReLU,
        nn.ReLU,
        functools.partial(nn.ReLU, inplace=True),
        nn.ReLU6,
        nn.Identity,
        functools.partial(Clamp, -0.5, 1.0),
        functools.partial(Clamp, 0.1, None),
        nn.Dropout,
    ]
    return draw(st.sampled_from(kinds))()


def _norm(draw: Draw, channels: int) -> list[nn.Module]:
    kind = draw(st.sampled_from(["affine", "plain", "none"]))
    return [] if kind == "none" else [nn.BatchNorm2d(channels, affine=kind == "affine")]


def _kernel(draw: Draw, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes: list[int] = []
    dilations: list[int] = []
    for side in shape[1:]:
        size = draw(st.integers(1, min(3, side)))
        sizes.append(size)
        dilations.append(draw(st.sampled_from([1, 2])) if 2 * (size - 1) < side else 1)
    return (sizes[0], sizes[1]), (dilations[0], dilations[1])


def _groups(draw: Draw, channels: int) -> tuple[int, int]:
    """Return groups and outputs."""
    kind = draw(st.sampled_from(["dense", "dense", "depth-wise", "grouped"]))
    if kind == "depth-wise":
        return channels, channels * draw(st.sampled_from([1, 2]))
    if kind == "grouped" and channels % 2 == 0:
        return 2, 2 * draw(st.integers(1, 3))
    return 1, draw(st.integers(1, 6))


def _convolution(draw: Draw, shape: Shape, *, keeps: bool = False) -> nn.Module:
    kernel, dilation = _kernel(draw, shape)
    groups, outputs = (1, shape[0]) if keeps else _groups(draw, shape[0])
    padding: Any = "same" if keeps else draw(st.sampled_from(["same", "valid", 0, 1, (1, 0), (0, 2)]))
    stride = (1, 1) if padding == "same" else (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    convolution = nn.Conv2d(shape[0], outputs, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return nn.Sequential(convolution, *_norm(draw, outputs), _activation(draw))


def _residual(draw: Draw, shape: Shape) -> nn.Module:
    kind = draw(st.sampled_from(["identity", "projection", "option A", "pre-activation", "inverted"]))
    channels = shape[0]
    if kind == "identity":
        body = nn.Sequential(_convolution(draw, shape, keeps=True), _convolution(draw, shape, keeps=True))
        return nn.Sequential(Sum(body, nn.Identity()), _activation(draw))
    if kind == "pre-activation":
        first = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        return nn.Sequential(first, Sum(_convolution(draw, shape, keeps=True), nn.Identity()))
    if kind == "inverted":
        wide = [nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels), nn.ReLU()]
        deep = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels, bias=False)
        narrow = [nn.BatchNorm2d(2 * channels), nn.ReLU6(), nn.Conv2d(2 * channels, channels, 1)]
        return Sum(nn.Sequential(*wide, deep, *narrow), nn.Identity())
    outputs = channels + draw(st.integers(0, 3))
    body = nn.Sequential(nn.Conv2d(channels, outputs, 3, 2, 1, bias=False), *_norm(draw, outputs))
    shortcut = (
        SubsamplePad(channels, outputs, 2)
        if kind == "option A"
        else nn.Sequential(nn.Conv2d(channels, outputs, 1, 2, bias=False), *_norm(draw, outputs))
    )
    return nn.Sequential(Sum(body, shortcut), _activation(draw))


def _joined(draw: Draw, shape: Shape) -> nn.Module:
    branches: list[nn.Module] = [_convolution(draw, shape, keeps=True) for _ in range(draw(st.integers(1, 2)))]
    return Joined(nn.Identity(), *branches) if draw(st.booleans()) else Joined(*branches)


def _pool(draw: Draw, shape: Shape) -> nn.Module:
    window = draw(st.integers(1, min(3, *shape[1:])))
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, window // 2))
    ceil = draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(window, stride, padding, ceil_mode=ceil)
    return nn.AvgPool2d(window, stride, padding, ceil_mode=ceil, count_include_pad=draw(st.booleans()))


def _shape_only(draw: Draw, shape: Shape) -> nn.Module:
    sides = tuple(draw(st.integers(0, 2)) for _ in range(4))
    kinds: list[nn.Module] = [nn.ZeroPad2d(sides), Thinned(2, 1), Thinned(1, 2), Arithmetic(shape[0]), nn.ReLU()]
    return draw(st.sampled_from(kinds))


BLOCKS = (_convolution, _convolution, _residual, _residual, _joined, _pool, _shape_only)


def _head(draw: Draw, shape: Shape) -> list[nn.Module]:
    classes = draw(st.integers(2, 5))
    last: list[nn.Module] = [nn.BatchNorm1d(classes, affine=False)] if draw(st.booleans()) else []
    kind = draw(st.sampled_from(["flat", "pooled", "averaged", "map"]))
    if kind == "map":
        return [nn.Conv2d(shape[0], classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last]
    front: dict[str, list[nn.Module]] = {
        "flat": [nn.Flatten()],
        "pooled": [nn.AdaptiveMaxPool2d(1), nn.Flatten()],
        "averaged": [Averaged()],
    }
    features = shape_behind(nn.Sequential(*front[kind]), shape)[0]
    if draw(st.booleans()):
        hidden = draw(st.integers(1, 5))
        return [*front[kind], nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes, bias=False), *last]
    return [*front[kind], nn.Linear(features, classes), *last]
