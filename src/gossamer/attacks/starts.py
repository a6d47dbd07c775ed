"""Where does an attack start? Rules as values, and the one function that reads them from a recipe."""

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel


@dataclass(frozen=True)
class NoStart:
    """Start at the clean image."""

    def __call__(self, threat: ThreatModel, x: Tensor, draws: Draws) -> Tensor:
        """Return x: (N, C, H, W)."""
        return x.detach().clone()

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class RandomStart:
    """Start at a point drawn uniformly from the ball, clipped into the box."""

    def __call__(self, threat: ThreatModel, x: Tensor, draws: Draws) -> Tensor:
        """Return one start per image: (N, C, H, W)."""
        return threat.random_start(x.detach(), draws)

    def __str__(self) -> str:
        return "random"


@dataclass(frozen=True)
class GaussianStart:
    """Start at x + deviation * N(0, 1), projected; 0.001 in TRADES (Zhang et al., ICML 2019) and MART."""

    deviation: float = 0.001

    def __post_init__(self) -> None:
        if not (math.isfinite(self.deviation) and self.deviation > 0):
            raise _no_start(self)

    def __call__(self, threat: ThreatModel, x: Tensor, draws: Draws) -> Tensor:
        """Return one start per image: (N, C, H, W)."""
        noise = draws.normal(x.shape, device=x.device).to(x.dtype)
        return threat.project(x.detach() + self.deviation * noise, x.detach())

    def __str__(self) -> str:
        return f"gaussian({self.deviation!r})"


@dataclass(frozen=True, eq=False)
class GivenStart:
    """Start at given images (N, C, H, W), projected: for perturbations carried from step to step."""

    images: Tensor

    def __call__(self, threat: ThreatModel, x: Tensor, draws: Draws) -> Tensor:
        """Return the given images around x: (N, C, H, W)."""
        return threat.project(self.images.detach(), x.detach())

    def __str__(self) -> str:
        return "given"


Start: TypeAlias = NoStart | RandomStart | GaussianStart | GivenStart

RANDOM = RandomStart()

_GAUSSIAN = re.compile(r"gaussian\((?P<deviation>.+)\)")


def parse_start(value: str | Start) -> Start:
    """Return the start written as "none", "random", "gaussian" or "gaussian(0.001)"; else ConfigError."""
    if callable(value):
        return value
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _no_start(repr(value))
    named: dict[str, Start] = {"none": NoStart(), "random": RandomStart(), "gaussian": GaussianStart()}
    if value in named:
        return named[value]
    match = _GAUSSIAN.fullmatch(value.replace(" ", ""))
    if match is None:
        raise _no_start(repr(value))
    try:
        return GaussianStart(float(match["deviation"]))
    except ValueError as error:
        raise _no_start(repr(value)) from error


def _no_start(got: object) -> ConfigError:
    return ConfigError(
        "attack start",
        expected="none, random or gaussian(DEVIATION) with a deviation above 0",
        got=got,
        remedy="write random, or gaussian(0.001) as TRADES does",
    )
