"""How long is one step of an attack? Rules as values, and the one function that reads them from a recipe."""

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

from gossamer.errors import ConfigError
from gossamer.threat import format_eps, parse_eps


def _check_positive(value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise _no_step(value)


def _no_step(got: object) -> ConfigError:
    return ConfigError(
        "attack step",
        expected="a length above 0, or a share of eps",
        got=got,
        remedy="write 2/255, eps/4, eps/n or 2.5eps/n (n: the number of steps)",
    )


@dataclass(frozen=True)
class Absolute:
    """A step of `length`, in pixel units of [0, 1], whatever eps is."""

    length: float

    def __post_init__(self) -> None:
        _check_positive(self.length)

    def size(self, eps: float, steps: int) -> float:
        """Return the step in pixel units of [0, 1]."""
        return self.length

    def __str__(self) -> str:
        return format_eps(self.length)


@dataclass(frozen=True)
class OfEps:
    """A step of factor * eps, whatever the number of steps is."""

    factor: float

    def __post_init__(self) -> None:
        _check_positive(self.factor)

    def size(self, eps: float, steps: int) -> float:
        """Return the step in pixel units of [0, 1]."""
        return self.factor * eps

    def __str__(self) -> str:
        return f"{self.factor!r}eps"


@dataclass(frozen=True)
class OverSteps:
    """A step of factor * eps / steps: with factor 1, the whole way crosses the ball's radius once."""

    factor: float

    def __post_init__(self) -> None:
        _check_positive(self.factor)

    def size(self, eps: float, steps: int) -> float:
        """Return the step in pixel units of [0, 1]."""
        return self.factor * eps / steps

    def __str__(self) -> str:
        return f"{self.factor!r}eps/n"


StepRule: TypeAlias = Absolute | OfEps | OverSteps

QUARTER = OfEps(0.25)
WHOLE = OfEps(1.0)

_WITH_EPS = re.compile(r"(?P<factor>[^*/]*?)\*?eps(?:/(?P<divisor>.+))?")


def parse_step(value: str | float | StepRule) -> StepRule:
    """Return the rule written as "2/255", 0.007, "eps/4", "1.25eps", "eps/n" or "2.5eps/n".

    Raises ConfigError for anything else and for a length that is not above 0.
    """
    if isinstance(value, Absolute | OfEps | OverSteps):
        return value
    text = str(value).replace(" ", "")
    match = _WITH_EPS.fullmatch(text)
    try:
        if match is None:
            return Absolute(parse_eps(text))
        factor = float(match["factor"] or 1)
        if match["divisor"] == "n":
            return OverSteps(factor)
        return OfEps(factor / float(match["divisor"] or 1))
    except (ValueError, ZeroDivisionError) as error:
        raise _no_step(repr(value)) from error
