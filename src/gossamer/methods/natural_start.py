"""The first epochs of a training on clean images alone, before its own objective takes over."""

from collections.abc import Sequence
from dataclasses import replace

from gossamer.errors import ConfigError
from gossamer.methods.drawing import clean
from gossamer.methods.stretches import beginning, rest
from gossamer.objectives.natural import Natural
from gossamer.training.phases import Phase, Start

NATURAL = "natural"


def after_natural_epochs(phase: Phase, epochs: int, start: Start) -> Sequence[Phase]:
    """Return a phase that trains on clean images for so many of its epochs, and the phase for the rest of them.

    The learning rate goes on where it stood; the optimiser's state begins anew. start: sets the weights of the rest
    from the state `natural.end`. No epochs, or an objective without attack: the phase as it is. Raises ConfigError.
    """
    if epochs >= phase.epochs:
        raise ConfigError(
            "method.natural_epochs",
            expected=f"fewer than training.epochs ({phase.epochs})",
            got=epochs,
            remedy="write 0 to attack from the beginning",
        )
    if epochs == 0 or isinstance(phase.objective, Natural):
        return (phase,)
    opening = replace(beginning(clean(phase), epochs), name=NATURAL, probes=())
    return (opening, replace(rest(phase, epochs), start=start))


def check_natural_epochs(epochs: int | None) -> None:
    """Raise ConfigError for fewer than no epochs."""
    if epochs is not None and epochs < 0:
        raise ConfigError(
            "method.natural_epochs", expected="at least 0", got=epochs, remedy="write 5 of 160, as published, or 0"
        )
