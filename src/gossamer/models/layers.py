"""Layers that networks of this field share: normalisation of pixels, shortcuts, initialisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad


class Normalize(nn.Module):
    """(x - mean) / std per channel, inside the model, so that attacks work on pixels in [0, 1].

    mean, std: buffers of shape (C,); without `mean` they are 0 and 1 and the arithmetic is skipped.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.active = mean is not None
        self.register_buffer("mean", torch.zeros(channels) if mean is None else torch.tensor(list(mean)))
        self.register_buffer("std", torch.ones(channels) if std is None else torch.tensor(list(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x: (N, C, H, W)."""
        if not self.active:
            return x
        return (x - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)


class SubsamplePad(nn.Module):
    """Shortcut without parameters: every `stride`-th pixel, zero channels appended (He et al., CVPR 2016, option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def conv3x3(inputs: int, outputs: int, stride: int = 1, *, groups: int = 1) -> nn.Conv2d:
    """Return a bias-free 3x3 convolution with padding 1."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a bias-free 1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the shortcut that projects by a 1x1 convolution with batch norm (He et al., option B)."""
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


def initialise(model: nn.Module) -> None:
    """Draw every kernel from N(0, 2 / fan_in) (He et al., ICCV 2015) and set every bias to zero.

    Batch norms keep gamma = 1 and beta = 0. Draws come from torch's global generator.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(module.bias)
