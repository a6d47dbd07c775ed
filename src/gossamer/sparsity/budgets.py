"""How many weights each layer keeps, given the density of the whole."""

from collections.abc import Mapping

from gossamer.errors import ConfigError


def check_density(density: float, field: str = "density") -> float:
    """Return a density in (0, 1]; raises ConfigError with the likely mistake named."""
    if 0.0 < density <= 1.0:
        return density
    remedy = "density is the share of weights kept: write 0.1 to keep 10 %"
    if 1.0 < density <= 100.0:
        remedy = f"write {density / 100:g} for {density:g} %"
    raise ConfigError(field, expected="a share of weights kept in (0, 1]", got=density, remedy=remedy)


def total_budget(sizes: Mapping[str, int], density: float) -> int:
    """Return K = int(density * N), the number of weights kept in the whole network."""
    return int(check_density(density) * sum(sizes.values()))


def uniform(sizes: Mapping[str, int], density: float) -> dict[str, int]:
    """Return int(density * n) for every layer of n weights."""
    check_density(density)
    return {name: int(density * size) for name, size in sizes.items()}
