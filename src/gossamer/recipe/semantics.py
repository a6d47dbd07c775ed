"""Which version of its arithmetic does each component have? Raised where the same values begin to compute others.

A stored phase is found again by the hash of what it was trained with, these numbers included: raising one makes every
phase that its component had a part in a phase that nobody has trained yet.
"""

from collections.abc import Mapping

SEMANTICS: Mapping[str, int] = {
    # The means of k-means are differences of sums, which rounds otherwise; attacks of one step stay such.
    "gossamer.methods.atmc": 2,
    "gossamer.methods.one_shot_admm": 3,
    # Its adversarial loss, by which schedules may wait, is a cross-entropy like any other objective's.
    "gossamer.objectives.trades": 2,
    # Layers that stay whole are not drawn towards their own past.
    "gossamer.methods.pwoa": 2,
    "gossamer.methods.robust_admm": 2,
    # The average of a network with fewer channels says that it has fewer.
    "gossamer.methods.channels": 2,
    # Rates that were learned near the ends of their range stay there when they are scaled to the budget.
    "gossamer.methods.harp": 2,
    # GraSP scores half batches, as released; before, batches moved the statistics that the next was attacked with.
    "gossamer.methods.early_mask": 3,
    # The zeros of the proximal form are zeros of an average too.
    "gossamer.sparsity.thresholding.SoftThreshold": 2,
    # The worst of several threats is chosen by the labels that its attacks go by.
    "gossamer.objectives.several": 2,
    # The first layer of a funnel is whole at most.
    "gossamer.sparsity.budgets.Funnel": 2,
    # Groups of channels have Gram matrices of their own.
    "gossamer.objectives.penalties.Parseval": 2,
}
"""By the path of a module, class or function; what is not listed has version 1, and so has what lies within it."""

SHARED = (
    "gossamer.attacks",
    "gossamer.data",
    "gossamer.evaluation",
    "gossamer.kernels",
    "gossamer.losses",
    "gossamer.models",
    "gossamer.seeding",
    "gossamer.sparsity",
    "gossamer.training",
)
"""What every phase may compute with beyond the objects that it names: whatever is raised here, or within, counts."""


def shared() -> dict[str, int]:
    """Return every version that was raised and that all phases count with."""
    return {path: version for path, version in SEMANTICS.items() if path.startswith(_inside(SHARED))}


def _inside(rooms: tuple[str, ...]) -> tuple[str, ...]:
    return (*rooms, *(f"{room}." for room in rooms))


def semantics(path: str) -> int:
    """Return the version of the arithmetic at a path: its own, or that of the nearest package around it."""
    parts = path.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((SEMANTICS[name] for name in names if name in SEMANTICS), 1)
