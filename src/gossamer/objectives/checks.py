"""Can an objective's number be what it is?"""

import math

from gossamer.errors import ConfigError


def check_weight(subject: str, value: float, remedy: str) -> None:
    """Raise ConfigError unless value is a finite number of at least 0."""
    if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        return
    raise ConfigError(subject, expected="a finite number >= 0", got=repr(value), remedy=remedy)


def check_share(subject: str, value: float, remedy: str) -> None:
    """Raise ConfigError unless value is a number in [0, 1]."""
    if not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        return
    raise ConfigError(subject, expected="a share in [0, 1]", got=repr(value), remedy=remedy)


def check_label_smoothing(value: float) -> None:
    """Raise ConfigError unless value is a number in [0, 1): at 1 no label is left."""
    check_share("objective.label_smoothing", value, "write 0.1, or leave it out")
    if value == 1:
        raise ConfigError(
            "objective.label_smoothing", expected="a share below 1", got=value, remedy="write 0.1, or leave it out"
        )
