"""How many weights each layer keeps, given the density of the whole: the published divisions, by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, Protocol, TypeAlias, TypeGuard, cast

from gossamer.errors import ConfigError
from gossamer.plugins import is_reference, make_function

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
WorkUnit: TypeAlias = Literal["multiply-adds", "latency"]
BudgetSpec: TypeAlias = str | Mapping[str, object]


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


def check_keeps(sizes: Mapping[str, int], density: float, field: str = "density") -> None:
    """Raise ConfigError for a density that leaves no weight of a whole network."""
    check_density(density, field)
    if total_budget(sizes, density) < 1:
        size = sum(sizes.values())
        raise ConfigError(
            field,
            expected=f"at least one of {size:,} weights kept",
            got=density,
            remedy=f"write {math.ceil(1e6 / size) / 1e6:g} or more",
        )


def uniform(sizes: Mapping[str, int], density: float) -> dict[str, int]:
    """Return int(density * n) for every layer of n weights."""
    check_density(density)
    return {name: int(density * size) for name, size in sizes.items()}


class Budget(Protocol):
    """A division of a network's density among its layers."""

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps; shapes: of the kernels, in module order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """The same density in every layer: int(density * n)."""

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps."""
        return uniform(_sizes(shapes), density)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """m_l = c * n_l^p with the surplus of layers that fill up shared among larger ones (Liu et al., NeurIPS 2022).

    p = 1: one rate for all; p = 0: one count for all. Layers are visited from the smallest; a rate above 1 is 1, and c
    is solved again for the layers left. A layer keeps int(rate * n) weights, so that the whole stays within K.
    """

    p: float = 0.1

    def __post_init__(self) -> None:
        if not is_share(self.p):
            raise ConfigError(
                "method.budget.p", expected="an exponent in [0, 1]", got=repr(self.p), remedy="write 0.1, as published"
            )

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps."""
        sizes = _sizes(shapes)
        rates = self.rates(sizes, density)
        return {name: int(rates[name] * size) for name, size in sizes.items()}

    def rates(self, sizes: Mapping[str, int], density: float) -> dict[str, float]:
        """Return the density of each layer, as the authors' code solves it."""
        rising = sorted(sizes.items(), key=lambda item: item[1])
        left = int(check_density(density) * sum(sizes.values()))
        powers = [size**self.p for _, size in rising]
        scale = density * sum(sizes.values()) / sum(powers)
        rates: dict[str, float] = {}
        for position, (name, size) in enumerate(rising):
            rates[name] = min(1.0, scale * size ** (self.p - 1.0))
            left -= int(rates[name] * size)
            larger = sum(powers[position + 1 :])
            scale = left / larger if larger else scale
        return {name: rates[name] for name in sizes}


@dataclass(frozen=True, kw_only=True)
class ErdosRenyi:
    """Densities in proportion to (inputs + outputs) / (inputs * outputs), layers that would exceed 1 left dense.

    kernel: count the kernel's height and width among both sums and products (ERK; Evci et al., ICML 2020), instead of
    channels alone (ER; Mocanu et al., 2018).
    """

    kernel: bool = True

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps."""
        weights = {name: self._share(shape) for name, shape in shapes.items()}
        return _proportional(_sizes(shapes), weights, density)

    def _share(self, shape: tuple[int, ...]) -> float:
        sides = shape if self.kernel else shape[:2]
        return sum(sides) / math.prod(sides)


@dataclass(frozen=True, kw_only=True)
class IGQ:
    """Densities 1 / (f * n + 1), with f such that the whole has its density (ideal gas quotas; Chen et al., 2022)."""

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps: n - int((1 - density of the layer) * n)."""
        sizes = _sizes(shapes)
        return {
            name: size - int((1.0 - share) * size)
            for (name, size), share in zip(sizes.items(), self.densities(sizes, density).values(), strict=True)
        }

    def densities(self, sizes: Mapping[str, int], density: float) -> dict[str, float]:
        """Return the density of each layer, by bisection to one weight."""
        wanted = check_density(density) * sum(sizes.values())
        low, high = 0.0, 1e20
        for _ in range(400):
            middle = (low + high) / 2
            kept = sum(size / (middle * size + 1.0) for size in sizes.values())
            if abs(kept - wanted) < 0.5:
                break
            low, high = (middle, high) if kept > wanted else (low, middle)
        else:
            middle = low
        return {name: 1.0 / (middle * size + 1.0) for name, size in sizes.items()}


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """Every layer denser than the next: densities in geometric sequence (Marshall, 2020, which names no slope).

    ratio: density of a layer over that of the one before, in (0, 1); where the first layer would have to keep more than
    all of its weights, the smallest ratio above it at which that one is whole.
    """

    ratio: float = 0.9

    def __post_init__(self) -> None:
        if not is_share(self.ratio) or self.ratio in (0, 1):
            raise ConfigError(
                "method.budget.ratio", expected="a ratio in (0, 1)", got=repr(self.ratio), remedy="write 0.9, say"
            )

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps."""
        sizes = _sizes(shapes)
        weights = {name: self._slope(sizes, density) ** position for position, name in enumerate(shapes)}
        return _proportional(sizes, weights, density)

    def _slope(self, sizes: Mapping[str, int], density: float) -> float:
        wanted = check_density(density) * sum(sizes.values())

        def kept(ratio: float) -> float:
            return sum(size * ratio**position for position, size in enumerate(sizes.values()))

        if kept(self.ratio) >= wanted:
            return self.ratio
        low, high = self.ratio, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if kept(middle) < wanted else (low, middle)
        return low


@dataclass(frozen=True, kw_only=True)
class Explicit:
    """A density for each layer, by patterns of layer names, first match wins; the rest share what remains evenly."""

    densities: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        _check_mapping("densities", self.densities, 'write {"conv1.*": 0.6}, say')
        for pattern, share in self.densities.items():
            if not is_share(share):
                raise ConfigError(
                    f"method.budget.densities.{pattern}",
                    expected="a share of the layer's weights kept in [0, 1]",
                    got=repr(share),
                    remedy="write 0.1 to keep 10 % of them",
                )

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps; raises ConfigError where the named layers exceed the whole."""
        sizes = _sizes(shapes)
        for pattern in self.densities:
            if not any(fnmatchcase(name, pattern) for name in sizes):
                raise ConfigError(
                    f"method.budget.densities.{pattern}",
                    expected="a pattern that matches a layer",
                    got=pattern,
                    remedy=f"the layers are {', '.join(sizes)}",
                )
        named = {name: share for name in sizes if (share := self.share(name)) is not None}
        counts = {name: int(share * sizes[name]) for name, share in named.items()}
        rest = {name: size for name, size in sizes.items() if name not in named}
        left = total_budget(sizes, density) - sum(counts.values())
        if left < 0 or left > sum(rest.values()):
            raise ConfigError(
                "method.budget.densities",
                expected=f"layers that leave between 0 and {sum(rest.values()):,} weights to the others",
                got=f"{left:,} of {total_budget(sizes, density):,}",
                remedy="change them, or method.density",
            )
        even = left / sum(rest.values()) if rest else 0.0
        return {name: counts.get(name, int(even * size)) for name, size in sizes.items()}

    def share(self, name: str) -> float | None:
        """Return the density that a layer is given by name, None where it shares what remains."""
        return next((share for pattern, share in self.densities.items() if fnmatchcase(name, pattern)), None)


@dataclass(frozen=True, kw_only=True)
class LeastWork:
    """Of all divisions of int(density * N) weights, the one whose work, sum of cost * weights, is least.

    by: what a weight costs: `multiply-adds` for one image, counted; `latency`: the dense layer's measured time on one
    image of this machine over its weights. floor: the least density of any layer, as a share of the whole's, without
    which whole layers would be cut; ceiling: the highest density of any layer. costs: of a weight of each layer, where
    they are known; otherwise `gossamer.sparsity.work` takes them from the network.
    """

    by: WorkUnit = "multiply-adds"
    floor: float = 0.1
    ceiling: float = 1.0
    costs: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        if self.by not in ("multiply-adds", "latency"):
            raise ConfigError(
                "method.budget.by", expected="multiply-adds or latency", got=repr(self.by), remedy="choose one"
            )
        if not is_share(self.floor) or not is_share(self.ceiling) or self.ceiling == 0.0:
            raise ConfigError(
                "method.budget",
                expected="floor in [0, 1] and ceiling in (0, 1]",
                got=f"floor {self.floor!r}, ceiling {self.ceiling!r}",
                remedy="write floor: 0.1 for layers of at least a tenth of the whole's density",
            )
        _check_mapping("costs", self.costs, "leave it out: costs are taken from the network")
        for name, cost in self.costs.items():
            if not _is_number(cost) or not 0.0 <= cost < math.inf:
                raise ConfigError(
                    f"method.budget.costs.{name}",
                    expected="what a weight of the layer costs, a number >= 0",
                    got=repr(cost),
                    remedy="leave costs out: they are taken from the network",
                )

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps; raises ConfigError where costs are unknown or too few fit."""
        sizes = _sizes(shapes)
        unknown = [name for name in sizes if name not in self.costs]
        if unknown:
            raise ConfigError(
                "method.budget.costs",
                expected="what a weight of each layer costs",
                got=f"nothing for {', '.join(unknown)}",
                remedy="leave costs out of a recipe; in Python, let gossamer.sparsity.work.settled look at the network",
            )
        wanted = total_budget(sizes, density)
        counts = {name: min(size, int(self.floor * density * size)) for name, size in sizes.items()}
        left = wanted - sum(counts.values())
        for name in sorted(sizes, key=lambda each: self.costs[each]):
            more = min(left, max(0, int(self.ceiling * sizes[name]) - counts[name]))
            counts[name] += more
            left -= more
        if left > 0:
            raise ConfigError(
                "method.budget.ceiling",
                expected="room for all weights",
                got=f"{left:,} of {wanted:,} too many",
                remedy="raise the ceiling, or lower method.density",
            )
        return counts


BUDGETS: Mapping[str, Callable[..., Budget]] = {
    "uniform": Uniform,
    "adaptive": Adaptive,
    "er": ErdosRenyi,
    "erk": ErdosRenyi,
    "igq": IGQ,
    "funnel": Funnel,
    "explicit": Explicit,
    "least-work": LeastWork,
}
_PRESETS: Mapping[str, Mapping[str, object]] = {"er": {"kernel": False}, "erk": {"kernel": True}}


def budget(spec: BudgetSpec) -> Budget:
    """Return a budget by name, or from {"name": ..., and its options}; raises ConfigError.

    A name may be a user's "package.module:factory", which is called with the options.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    if isinstance(name, str) and is_reference(name):
        return cast(
            "Budget", make_function("budget", name, "budget(shapes, density) -> weights of each layer", options)
        )
    if not isinstance(name, str) or name not in BUDGETS:
        raise ConfigError(
            "method.budget",
            expected=f"one of {', '.join(BUDGETS)}, {{name: adaptive, p: 0.1}}, or package.module:factory",
            got=repr(spec),
            remedy="choose one of them",
        )
    try:
        return BUDGETS[name](**{**_PRESETS.get(name, {}), **options})
    except TypeError as error:
        raise ConfigError("method.budget", expected=f"options of {name}", got=repr(spec), remedy=str(error)) from error


def check_scope(scope: str, spec: BudgetSpec) -> None:
    """Raise ConfigError for a budget or scope that cannot be, and for a budget that a global choice would not ask."""
    budget(spec)
    if scope not in ("global", "layer"):
        raise ConfigError("method.scope", expected="global or layer", got=repr(scope), remedy="choose one of the two")
    if scope == "global" and spec not in ("uniform", {"name": "uniform"}):
        raise ConfigError(
            "method.budget",
            expected="none beside scope: global, under which all layers share one choice",
            got=spec,
            remedy="write scope: layer, or budget: uniform",
        )


def divide(budget: Budget, shapes: Shapes, density: float) -> dict[str, int]:
    """Return how many weights a budget gives each layer, as far as a network can train with them.

    Raises ConfigError as `check_counts` does, and where a layer would be left without a weight, which cuts the network
    through: unless that was asked for, by an explicit density of 0, a least-work floor of 0 or another's own budget.
    """
    counts, sizes = dict(budget(shapes, density)), _sizes(shapes)
    check_counts(counts, sizes)
    for name, count in counts.items():
        if count == 0 and not _may_be_empty(budget, name):
            raise ConfigError(
                f"method.density for {name}",
                expected=f"at least one of its {sizes[name]:,} weights",
                got=f"none at density {density:g}",
                remedy="raise the density, or give small layers more: method.budget: {name: adaptive, p: 0.1}",
            )
    return counts


def check_counts(counts: Mapping[str, object], sizes: Mapping[str, int]) -> None:
    """Raise ConfigError where counts are not of these layers, no whole numbers, or beyond what a layer has."""
    if set(counts) != set(sizes):
        raise ConfigError(
            "method.budget",
            expected=f"a number of weights for each of {', '.join(sizes)}",
            got=", ".join(counts) or "nothing",
            remedy="mend the budget, or choose another",
        )
    for name, count in counts.items():
        if not isinstance(count, int) or not 0 <= count <= sizes[name]:
            raise ConfigError(
                f"method.budget of {name}",
                expected=f"between 0 and {sizes[name]:,} weights",
                got=f"{count:,}" if isinstance(count, int) else repr(count),
                remedy="lower method.density, or choose another budget",
            )


def _may_be_empty(budget: Budget, name: str) -> bool:
    if isinstance(budget, Explicit):
        return budget.share(name) == 0.0
    if isinstance(budget, LeastWork):
        return budget.floor == 0.0
    return not isinstance(budget, Uniform | Adaptive | ErdosRenyi | IGQ | Funnel)


def is_share(value: object) -> bool:
    """Return whether a value, of whatever type a recipe gave it, is a number in [0, 1]."""
    return _is_number(value) and 0.0 <= value <= 1.0


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_mapping(field: str, value: object, remedy: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"method.budget.{field}", expected="numbers by layer", got=repr(value), remedy=remedy)


def _sizes(shapes: Shapes) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _proportional(sizes: Mapping[str, int], weights: Mapping[str, float], density: float) -> dict[str, int]:
    """Return int(min(1, e * weight) * n) with e such that the whole has its density; full layers stay dense."""
    wanted = check_density(density) * sum(sizes.values())
    dense: set[str] = set()
    while True:
        free = {name: weights[name] * size for name, size in sizes.items() if name not in dense}
        left = wanted - sum(sizes[name] for name in dense)
        scale = left / sum(free.values()) if free else 0.0
        full = {name for name in free if scale * weights[name] >= 1.0}
        if not full:
            return {name: size if name in dense else int(scale * weights[name] * size) for name, size in sizes.items()}
        dense |= full
