"""Residual networks with pre-activation blocks: WideResNet-n-k and PreAct ResNet-18.

Identity mappings in deep residual networks (He et al., ECCV 2016); Wide residual networks (Zagoruyko and Komodakis,
BMVC 2016). Where a block changes shape, its first batch norm and ReLU also feed the shortcut, a 1x1 convolution
without batch norm. Every factory initialises as `gossamer.models.layers.initialise` says (He-normal).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from gossamer.errors import ConfigError
from gossamer.models.ends import Ends, assemble, check_integer, scaled
from gossamer.models.layers import conv1x1, conv3x3

DEEPEST = 1000
"""Layers a WideResNet has at most: a number that a file names must not build blocks without end."""


class PreActBlock(nn.Module):
    """Batch norm, ReLU and 3x3 convolution, twice, added to a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        changes = stride != 1 or inputs != width
        self.shortcut = conv1x1(inputs, width, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, inputs, H, W) to (N, width, H / stride, W / stride)."""
        out = relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(out)
        out = relu(self.bn2(self.conv1(out)))
        return self.conv2(out) + skip


def _preact(depths: Sequence[int], widths: Sequence[int], stem_width: int, ends: Ends) -> nn.Module:
    body: dict[str, nn.Module] = {"conv1": conv3x3(ends.in_channels, stem_width)}
    channels = stem_width
    for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        first = PreActBlock(channels, width, 1 if index == 0 else 2)
        rest = [PreActBlock(width, width, 1) for _ in range(depth - 1)]
        body[f"layer{index + 1}"] = nn.Sequential(first, *rest)
        channels = width
    body.update(bn=nn.BatchNorm2d(channels), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    body["fc"] = nn.Linear(channels, ends.num_classes)
    return assemble(body, ends)


def wideresnet(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    depth: int = 34,
    width: int = 10,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return WideResNet-n-k without dropout; depth: n = 6 blocks a stage + 4; width: the widening factor k.

    The three stages are widened, not the stem. Raises ConfigError for another depth.
    """
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    _check_depth(depth)
    check_integer("width", width, least=1)
    return _preact((depth // 6,) * 3, scaled((16, 32, 64), width), 16, ends)


def wideresnet28(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: int = 4,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return WideResNet-28-k without dropout; width: the widening factor k of the three stages (not of the stem)."""
    return wideresnet(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        depth=28,
        width=width,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )


def preact_resnet18(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return PreAct ResNet-18 with batch norm and ReLU before the pooling; width: factor on every channel count."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    widths = scaled((64, 128, 256, 512), width)
    return _preact((2, 2, 2, 2), widths, widths[0], ends)


def _check_depth(depth: object) -> None:
    check_integer("depth", depth, least=10)
    if depth in range(10, DEEPEST + 1, 6):
        return
    raise ConfigError(
        "depth",
        expected=f"6 n + 4 layers, n blocks in each of three stages, {DEEPEST} at most",
        got=depth,
        remedy="write 28, 34, 40 or 70, say",
    )
