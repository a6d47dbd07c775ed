"""A training in two: its first epochs, and the rest of it, each as it would have been in the whole."""

from dataclasses import replace

from gossamer.training.phases import Phase
from gossamer.training.schedules import Continued, Opening


def beginning(phase: Phase, epochs: int) -> Phase:
    """Return the first epochs of a phase, at the learning rates of the whole; no average, and no best state."""
    schedule = Opening(schedule=phase.schedule, epochs=phase.epochs)
    return replace(phase, epochs=epochs, schedule=schedule, average=None, select=None)


def rest(phase: Phase, epochs: int) -> Phase:
    """Return what is left of a phase after so many epochs: its learning rates go on where they stood.

    What begins at an epoch, as averages and perturbations of weights do, begins at the same epoch of the whole. The
    optimiser's state begins anew, as in every phase.
    """
    return replace(
        phase,
        epochs=phase.epochs - epochs,
        schedule=Continued(schedule=phase.schedule, epochs=epochs),
        average=phase.average and replace(phase.average, start=max(0, phase.average.start - epochs)),
        perturbation=phase.perturbation
        and replace(phase.perturbation, start=max(0, phase.perturbation.start - epochs)),
    )
