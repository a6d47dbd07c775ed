"""How does density fall while a network trains? Each schedule is a function of how far it has come."""

from collections.abc import Callable, Mapping

from gossamer.errors import ConfigError
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


DENSITY_SCHEDULES: Mapping[str, Callable[[float, float, float], float]] = {
    "constant": constant,
    "linear": linear,
    "cubic": cubic,
    "geometric": geometric,
}


def density_at(name: str, progress: float, *, start: float, end: float) -> float:
    """Return the density at progress (clipped to [0, 1]) from start to end; raises ConfigError for an unknown name."""
    if name not in DENSITY_SCHEDULES:
        raise ConfigError(
            "method.schedule",
            expected=f"one of {', '.join(DENSITY_SCHEDULES)}",
            got=repr(name),
            remedy="choose one of them",
        )
    check_density(start, "start density")
    check_density(end, "density")
    return DENSITY_SCHEDULES[name](min(1.0, max(0.0, progress)), start, end)
