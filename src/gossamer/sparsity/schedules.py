"""How does density fall while a network trains? Each schedule is a function of how far it has come."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gossamer.plugins import named_function
from gossamer.sparsity.budgets import check_density


def constant(progress: float, start: float, end: float) -> float:
    """Return the final density throughout."""
    del progress, start
    return end


def linear(progress: float, start: float, end: float) -> float:
    """Return start + (end - start) * t."""
    return start + (end - start) * progress


def cubic(progress: float, start: float, end: float) -> float:
    """Return end + (start - end) * (1 - t)^3: many weights early, few late (Zhu and Gupta, 2017)."""
    return end + (start - end) * (1.0 - progress) ** 3


def geometric(progress: float, start: float, end: float) -> float:
    """Return start^(1 - t) * end^t: an equal share of what is left at each step."""
    return start ** (1.0 - progress) * end**progress


DensitySchedule: TypeAlias = Callable[[float, float, float], float]

DENSITY_SCHEDULES: Mapping[str, DensitySchedule] = {
    "constant": constant,
    "linear": linear,
    "cubic": cubic,
    "geometric": geometric,
}


def density_schedule(name: str) -> DensitySchedule:
    """Return the schedule of a name, or what a user's "package.module:factory" makes; raises ConfigError."""
    return named_function("schedule", name, DENSITY_SCHEDULES, "schedule(progress, start, end) -> density")


def density_at(name: str, progress: float, *, start: float, end: float) -> float:
    """Return the density at progress (clipped to [0, 1]) from start to end; name: as in `density_schedule`.

    Rounding takes it past neither, and at the end it is the end. Raises ConfigError for an unknown name and for a
    density outside (0, 1].
    """
    schedule = density_schedule(name)
    check_density(start, "start density")
    check_density(end, "density")
    found = schedule(min(1.0, max(0.0, progress)), start, end)
    if name not in DENSITY_SCHEDULES:
        return check_density(found, f"density of schedule {name}")
    return end if progress >= 1.0 else min(max(found, min(start, end)), max(start, end))
