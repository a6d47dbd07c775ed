"""MobileNetV2 for CIFAR images (Sandler et al., CVPR 2018), with ReLU in place of ReLU6.

The stem and the first stages keep the resolution. A block of stride 1 that changes its channels has a projection
shortcut. Initialised as `gossamer.models.layers.initialise` says (He-normal).
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from gossamer.models.ends import Ends, assemble
from gossamer.models.layers import conv1x1, conv3x3, projection

# (expansion, channels, blocks, stride of the first block)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1; a shortcut where the stride is 1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inputs
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.adds = stride == 1
        if self.adds:
            self.shortcut = nn.Identity() if inputs == outputs else projection(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)))
        out = relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.adds else out


def mobilenetv2(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return MobileNetV2 with a 3x3 stem of 32 channels and stride 1."""
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    body: dict[str, nn.Module] = {"conv1": conv3x3(in_channels, 32), "bn1": nn.BatchNorm2d(32), "relu1": nn.ReLU()}
    channels = 32
    for index, (expansion, width, depth, stride) in enumerate(STAGES, start=1):
        first = InvertedResidual(channels, width, expansion, stride)
        rest = [InvertedResidual(width, width, expansion, 1) for _ in range(depth - 1)]
        body[f"layer{index}"] = nn.Sequential(first, *rest)
        channels = width
    body.update(conv2=conv1x1(channels, 1280), bn2=nn.BatchNorm2d(1280), relu2=nn.ReLU())
    body.update(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(1280, num_classes))
    return assemble(body, ends)
