"""Are a method's own epochs and learning rates possible? What several methods check alike."""

import math

from gossamer.errors import ConfigError


def check_epochs(field: str, epochs: int | None) -> None:
    """Raise ConfigError unless epochs is None or at least 1."""
    if epochs is None or epochs >= 1:
        return
    raise ConfigError(
        field, expected="at least 1", got=epochs, remedy="leave it out for the published share of training.epochs"
    )


def check_rate(field: str, rate: float) -> None:
    """Raise ConfigError unless rate is a positive share of the recipe's learning rate."""
    if 0.0 < rate < math.inf:
        return
    raise ConfigError(
        field, expected="a share of the learning rate above 0", got=rate, remedy="write 0.1 for a tenth of it"
    )
