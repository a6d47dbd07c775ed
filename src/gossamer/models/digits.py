"""A small convolutional network for 8x8 digits that trains adversarially in seconds on one CPU core."""

from collections.abc import Sequence

from torch import nn

from gossamer.models.ends import Ends, assemble, scaled
from gossamer.models.layers import conv3x3


def digits_cnn(
    *,
    num_classes: int = 10,
    in_channels: int = 1,
    image_size: int = 8,
    width: float = 1.0,
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return convolutions 5x5 of 32, 3x3 of 64 and 64 channels with batch norm, and a dense layer.

    The 3x3 ones have stride 2; width: factor on every channel count. 58,656 kernel weights for one channel and ten
    classes; initialised as `gossamer.models.layers.initialise` says (He-normal). Raises ConfigError.
    """
    first, second, third = scaled((32, 64, 64), width)
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
    )
    body: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, first, 5, padding=2, bias=False),
        "bn1": nn.BatchNorm2d(first),
        "relu1": nn.ReLU(),
        "conv2": conv3x3(first, second, 2),
        "bn2": nn.BatchNorm2d(second),
        "relu2": nn.ReLU(),
        "conv3": conv3x3(second, third, 2),
        "bn3": nn.BatchNorm2d(third),
        "relu3": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(2),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(4 * third, num_classes),
    }
    return assemble(body, ends)
