"""The first epochs of a training on clean images alone, before its own objective takes over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gossamer.errors import ConfigError
from gossamer.methods.drawing import clean
from gossamer.objectives.natural import Natural
from gossamer.training.phases import Phase, Start
from gossamer.training.schedules import Continued, Schedule

NATURAL = "natural"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Another schedule as if training went on for `epochs`: the beginning of a longer one."""

    schedule: Schedule
    epochs: int

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return the other schedule's factor, counted in the whole training."""
        return self.schedule(step, self.epochs * per_epoch, per_epoch)


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
    opening = replace(
        clean(phase),
        name=NATURAL,
        epochs=epochs,
        schedule=Opening(schedule=phase.schedule, epochs=phase.epochs),
        average=None,
        probes=(),
    )
    rest = replace(
        phase,
        epochs=phase.epochs - epochs,
        schedule=Continued(schedule=phase.schedule, epochs=epochs),
        start=start,
        average=phase.average and replace(phase.average, start=max(0, phase.average.start - epochs)),
        perturbation=phase.perturbation
        and replace(phase.perturbation, start=max(0, phase.perturbation.start - epochs)),
    )
    return (opening, rest)


def check_natural_epochs(epochs: int | None) -> None:
    """Raise ConfigError for fewer than no epochs."""
    if epochs is not None and epochs < 0:
        raise ConfigError(
            "method.natural_epochs", expected="at least 0", got=epochs, remedy="write 5 of 160, as published, or 0"
        )
