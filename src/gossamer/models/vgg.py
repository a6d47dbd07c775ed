"""VGG-16 with batch norm, as used for CIFAR images, and in its ImageNet layout.

Very deep convolutional networks (Simonyan and Zisserman, ICLR 2015). Block by block the names are block1, ..., block5,
dense. Every factory initialises as `gossamer.models.layers.initialise` says (He-normal).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn

from gossamer.models.ends import Ends, assemble, check_choice

Head: TypeAlias = Literal["dense-256", "dense-4096", "single"]

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


@dataclass(frozen=True, kw_only=True)
class HeadLayout:
    """What follows the last convolution.

    last_pool: a fifth 2x2 max-pooling; grid: features are averaged to (512, grid, grid); hidden: widths of the
    hidden dense layers; dropout: probability after each of them.
    """

    last_pool: bool
    grid: int
    hidden: tuple[int, ...]
    dropout: float

    @property
    def smallest_image(self) -> int:
        """The least image size that every pooling can halve."""
        return 32 if self.last_pool else 16


HEADS: Mapping[str, HeadLayout] = {
    "dense-256": HeadLayout(last_pool=False, grid=2, hidden=(256, 256), dropout=0.0),
    "dense-4096": HeadLayout(last_pool=True, grid=7, hidden=(4096, 4096), dropout=0.5),
    "single": HeadLayout(last_pool=True, grid=1, hidden=(), dropout=0.0),
}


def _block(inputs: int, widths: Sequence[int], *, batch_norm: bool, pool: bool) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths, start=1):
        layers[f"conv{index}"] = nn.Conv2d(inputs, width, 3, padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{index}"] = nn.BatchNorm2d(width)
        layers[f"relu{index}"] = nn.ReLU()
        inputs = width
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def _dense(inputs: int, layout: HeadLayout, num_classes: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(layout.hidden, start=1):
        layers[f"fc{index}"] = nn.Linear(inputs, width)
        layers[f"relu{index}"] = nn.ReLU()
        if layout.dropout:
            layers[f"dropout{index}"] = nn.Dropout(layout.dropout)
        inputs = width
    layers["out"] = nn.Linear(inputs, num_classes)
    return nn.Sequential(layers)


def _vgg16(layout: HeadLayout, ends: Ends, *, batch_norm: bool) -> nn.Module:
    body: dict[str, nn.Module] = {}
    channels = ends.in_channels
    for index, widths in enumerate(BLOCKS, start=1):
        pool = index < len(BLOCKS) or layout.last_pool
        body[f"block{index}"] = _block(channels, widths, batch_norm=batch_norm, pool=pool)
        channels = widths[-1]
    body["pool"] = nn.AdaptiveAvgPool2d(layout.grid)
    body["flatten"] = nn.Flatten()
    body["dense"] = _dense(channels * layout.grid**2, layout, ends.num_classes)
    return assemble(body, ends)


def vgg16(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    head: Head = "dense-256",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return VGG-16 with batch norm.

    head: "dense-256" has no fifth pooling and dense layers 2048-256-256-classes (Sehwag et al., NeurIPS 2020;
    Ozdenizci and Legenstein, ICML 2021), "single" one dense layer of 512 inputs after five poolings, "dense-4096"
    that of the ImageNet layout.
    """
    check_choice("head", head, tuple(HEADS))
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
        smallest_image=HEADS[head].smallest_image,
    )
    return _vgg16(HEADS[head], ends, batch_norm=True)


def vgg16_imagenet(
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    image_size: int = 224,
    head: Head = "dense-4096",
    last_batch_norm: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return VGG-16 in its ImageNet layout: no batch norm, biases, two hidden dense layers of 4096 with dropout."""
    check_choice("head", head, tuple(HEADS))
    ends = Ends(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        last_batch_norm=last_batch_norm,
        mean=mean,
        std=std,
        smallest_image=HEADS[head].smallest_image,
    )
    return _vgg16(HEADS[head], ends, batch_norm=False)
