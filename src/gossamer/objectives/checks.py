"""Can an objective's number be what it is?"""

import math

from gossamer.errors import ConfigError


def check_weight(subject: str, value: float) -> None:
    """Raise ConfigError unless value is a finite number of at least 0."""
    if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and value >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        return
    raise ConfigError(subject, expected="a finite number >= 0", got=repr(value), remedy="write for example 6")
