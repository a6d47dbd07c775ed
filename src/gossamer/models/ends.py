"""What goes into a network and what comes out of it: sizes checked, first and last layers built around its body."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from gossamer.errors import ConfigError
from gossamer.models.layers import Normalize, initialise


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The two ends of a network: images (N, in_channels, image_size, image_size) in [0, 1], logits (N, num_classes).

    mean, std: per channel, in pixel units of [0, 1], or neither; last_batch_norm: a non-affine batch norm over the
    logits (Liu et al., NeurIPS 2022); smallest_image: the least image_size that leaves every layer a pixel.
    Raises ConfigError where a size cannot be.
    """

    num_classes: int
    in_channels: int
    image_size: int
    last_batch_norm: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None
    smallest_image: int = 1

    def __post_init__(self) -> None:
        check_integer("num_classes", self.num_classes, least=2)
        check_integer("in_channels", self.in_channels, least=1)
        check_integer("image_size", self.image_size, least=self.smallest_image)
        self._check_statistics()

    def _check_statistics(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise ConfigError(
                "mean and std",
                expected="both or neither",
                got=f"mean={self.mean}, std={self.std}",
                remedy="give the one that is missing, or leave both out",
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if len(values) != self.in_channels or not all(is_finite_number(value) for value in values):
                raise ConfigError(
                    name,
                    expected=f"{self.in_channels} finite numbers, one a channel",
                    got=list(values),
                    remedy="give one number for each of in_channels",
                )
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(
                "std",
                expected="positive numbers",
                got=list(self.std),
                remedy="leave mean and std out for no normalisation",
            )


def assemble(body: Mapping[str, nn.Module], ends: Ends) -> nn.Module:
    """Return normalisation, body and (if asked for) last batch norm as one chain, initialised by `initialise`."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["normalize"] = Normalize(ends.in_channels, mean=ends.mean, std=ends.std)
    layers.update(body)
    if ends.last_batch_norm:
        layers["last_bn"] = nn.BatchNorm1d(ends.num_classes, affine=False)
    model = nn.Sequential(layers)
    initialise(model)
    return model


def check_integer(name: str, value: object, *, least: int) -> None:
    """Raise ConfigError unless value is an integer of at least `least`."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return
    raise ConfigError(
        name,
        expected=f"an integer of at least {least}",
        got=repr(value),
        remedy=f"write {least} or more, or choose another network",
    )


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ConfigError unless value is among choices."""
    if value in choices:
        return
    raise ConfigError(
        name,
        expected=" or ".join(repr(choice) for choice in choices),
        got=repr(value),
        remedy="write one of these",
    )


def is_finite_number(value: object) -> bool:
    """Return whether value is an integer or float, neither infinite nor NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def scaled(channels: Sequence[int], width: float) -> tuple[int, ...]:
    """Return channel counts times width, rounded; raises ConfigError where a count would vanish."""
    if is_finite_number(width) and round(min(channels) * width) >= 1:
        return tuple(round(count * width) for count in channels)
    raise ConfigError(
        "width",
        expected=f"a number that leaves at least one of {min(channels)} channels",
        got=repr(width),
        remedy="write 1.0 for the published network, 0.5 for half its channels",
    )
