"""Residual networks with post-activation blocks: ResNet-18/34/50, ResNet-20, WideResNet-20-k, small dense controls.

Deep residual learning for image recognition (He et al., CVPR 2016). On CIFAR images the ResNet-18/34/50 have a 3x3
stem of stride 1 without pooling; their stages have 64, 128, 256 and 512 channels. Block by block the names are
conv1, layer1, layer2, ..., fc. Every factory initialises as `gossamer.models.layers.initialise` says (He-normal).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn.functional import relu

from gossamer.models.ends import Ends, assemble, check_choice, check_integer, scaled
from gossamer.models.layers import SubsamplePad, conv1x1, conv3x3, projection

Stem: TypeAlias = Literal["cifar", "imagenet"]
Shortcut: TypeAlias = Literal["A", "B"]

SHORTCUTS: Mapping[str, Callable[[int, int, int], nn.Module]] = {"A": SubsamplePad, "B": projection}
STAGES = (64, 128, 256, 512)
THIN_STAGES = (16, 32, 64)
DEPTHS: Mapping[str, tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet20": (3, 3, 3),
}
# Channels a stage by the exponent p with which parameters are spread over layers of the size n: n^p (1: in
# proportion to size, 0: equally). Each keeps about 1 % of the weights of the network with 64 to 512 channels.
SMALL_WIDTHS: Mapping[str, Mapping[float, tuple[int, ...]]] = {
    "resnet18": {1.0: (6, 13, 26, 51), 0.1: (23, 25, 27, 29)},
    "resnet34": {1.0: (6, 13, 26, 51), 0.5: (14, 20, 29, 40), 0.1: (23, 25, 27, 29), 0.0: (26, 26, 26, 26)},
    "resnet50": {1.0: (7, 13, 26, 51), 0.1: (23, 25, 27, 31)},
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, inputs, H, W) to (N, width, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with batch norm, the last four times as wide, added to a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, self.expansion * width)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, inputs, H, W) to (N, 4 * width, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        out = relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return relu(out + self.shortcut(x))


Block: TypeAlias = type[BasicBlock] | type[Bottleneck]


def _stem(kind: Stem, inputs: int, outputs: int) -> dict[str, nn.Module]:
    check_choice("stem", kind, ("cifar", "imagenet"))
    if kind == "cifar":
        return {"conv1": conv3x3(inputs, outputs), "bn1": nn.BatchNorm2d(outputs), "relu": nn.ReLU()}
    return {
        "conv1": nn.Conv2d(inputs, outputs, 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(outputs),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }


def _stage(block: Block, inputs: int, width: int, *, depth: int, stride: int, shortcut: Shortcut) -> nn.Module:
    outputs = block.expansion * width
    blocks: list[nn.Module] = []
    for index in range(depth):
        source, step = (inputs, stride) if index == 0 else (outputs, 1)
        changes = source != outputs or step != 1
        skip = SHORTCUTS[shortcut](source, outputs, step) if changes else nn.Identity()
        blocks.append(block(source, width, step, skip))
    return nn.Sequential(*blocks)


def _resnet(
    block: Block,
    depths: Sequence[int],
    widths: Sequence[int],
    ends: Ends,
    *,
    stem: Stem = "cifar",
    stem_width: int | None = None,
    shortcut: Shortcut = "B",
) -> nn.Module:
    check_choice("shortcut", shortcut, tuple(SHORTCUTS))
    channels = widths[0] if stem_width is None else stem_width
    body = _stem(stem, ends.in_channels, channels)
    for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        stride = 1 if index == 0 else 2
        body[f"layer{index + 1}"] = _stage(block, channels, width, depth=depth, stride=stride, shortcut=shortcut)
        channels = block.expansion * width
    body.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, ends.num_classes))
    return assemble(body, ends)


def resnet18(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return ResNet-18; width: factor on every channel count (1/4 and 1/2 in Rakin et al., 2019)."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _resnet(BasicBlock, DEPTHS["resnet18"], scaled(STAGES, width), ends, stem=stem)


def resnet34(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return ResNet-34; stem: "imagenet" is the 7x7 convolution of stride 2 with max-pooling, for large images."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _resnet(BasicBlock, DEPTHS["resnet34"], scaled(STAGES, width), ends, stem=stem)


def resnet50(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return ResNet-50, whose bottleneck blocks stride at their 3x3 convolution."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _resnet(Bottleneck, DEPTHS["resnet50"], scaled(STAGES, width), ends, stem=stem)


def _small(name: str, block: Block, p: float, ends: Ends, stem: Stem) -> nn.Module:
    check_choice("p", p, tuple(SMALL_WIDTHS[name]))
    return _resnet(block, DEPTHS[name], SMALL_WIDTHS[name][p], ends, stem=stem)


def small_resnet18(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    p: float = 0.1,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return the dense ResNet-18 with about 1 % of the weights (Liu et al., NeurIPS 2022); p: see SMALL_WIDTHS."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _small("resnet18", BasicBlock, p, ends, stem)


def small_resnet34(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    p: float = 0.1,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return the dense ResNet-34 with about 1 % of the weights (Liu et al., NeurIPS 2022); p: see SMALL_WIDTHS."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _small("resnet34", BasicBlock, p, ends, stem)


def small_resnet50(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    p: float = 0.1,
    stem: Stem = "cifar",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return the dense ResNet-50 with about 1 % of the weights (Liu et al., NeurIPS 2022); p: see SMALL_WIDTHS."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _small("resnet50", Bottleneck, p, ends, stem)


def resnet20(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    shortcut: Shortcut = "A",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return ResNet-20 of 16, 32, 64 channels; shortcut: "A" subsamples and pads with zeros, "B" projects."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    return _resnet(BasicBlock, DEPTHS["resnet20"], scaled(THIN_STAGES, width), ends, shortcut=shortcut)


def wideresnet20(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: int = 8,
    shortcut: Shortcut = "A",
    wide_stem: bool = True,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return the post-activation WideResNet-20-k (Gilles, MIT 2020): ResNet-20 with k = width times the channels.

    wide_stem: the stem is widened too; otherwise it keeps 16 channels.
    """
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    check_integer("width", width, least=1)
    return _resnet(
        BasicBlock,
        DEPTHS["resnet20"],
        scaled(THIN_STAGES, width),
        ends,
        stem_width=None if wide_stem else THIN_STAGES[0],
        shortcut=shortcut,
    )
