"""To which set do sparse weights belong? Projections onto constraint sets, for methods that alternate with them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast, get_args

import torch
from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.plugins import make_one
from gossamer.sparsity.budgets import Budget
from gossamer.sparsity.patterns import IRREGULAR, Pattern, project
from gossamer.sparsity.protocol import BudgetContract
from gossamer.sparsity.quantise import levels, quantise


class ConstraintSet(Protocol):
    """A set of weights that depends on a density; contract: how the density binds in it."""

    @property
    def contract(self) -> BudgetContract:
        """How the density asked for binds."""
        ...

    def __call__(self, weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        """Return the weights brought into the set, layer by layer; idempotent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """At most so many weights, in a pattern; budget: what each layer may keep, None: the whole network competes."""

    pattern: Pattern = IRREGULAR
    budget: Budget | None = None

    @property
    def contract(self) -> BudgetContract:
        """Single weights fill the budget, whole tiles stay below it."""
        return "exact" if self.pattern == IRREGULAR else "at-most"

    def free(self, weights: Mapping[str, Tensor], density: float) -> frozenset[str]:
        """Return the layers whose own budget takes in all of them; all layers where the network's does."""
        masks = self.pattern({name: torch.ones_like(weight) for name, weight in weights.items()}, density, self.budget)
        whole = frozenset(name for name in weights if bool(masks[name].all()))
        # Competing, a layer that stays whole does so by its weights.
        return whole if self.budget is not None or len(whole) == len(weights) else frozenset()

    def __call__(self, weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        """Return the nearest weights of the set."""
        return project(weights, self.pattern, density, self.budget)


@dataclass(frozen=True, kw_only=True)
class Redundant:
    """Sparse weights, no two filters of one layer nearer to each other than phi: the later of such a pair is zeroed.

    phi: l2 distance between two filters. Source: Marshall, 2020, section 3.2.1, which states the set between layers,
    whose shapes do not compare. Raises ConfigError for a distance below 0.
    """

    within: Sparse
    phi: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.phi < math.inf:
            raise ConfigError(
                "method.phi", expected="a distance between filters >= 0", got=self.phi, remedy="write 0.1, say"
            )

    @property
    def contract(self) -> BudgetContract:
        """What is redundant goes on top of the budget."""
        return "at-most"

    def free(self, weights: Mapping[str, Tensor], density: float) -> frozenset[str]:
        """Filters of any layer may come too near to each other."""
        self.within.free(weights, density)
        return frozenset()

    def __call__(self, weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        """Return the sparse weights without redundant filters."""
        return {name: self._without_twins(weight) for name, weight in self.within(weights, density).items()}

    def _without_twins(self, weight: Tensor) -> Tensor:
        filters = weight.flatten(1)
        # In float64 a matrix product tells distances as well as differences in float32 do, in a fraction of the time.
        exact = filters.double()
        near = (torch.cdist(exact, exact, compute_mode="use_mm_for_euclid_dist") < self.phi).cpu()
        alive = filters.any(dim=1).tolist()
        for later in range(len(alive)):
            twins = near[later, :later].nonzero().flatten().tolist()
            alive[later] = alive[later] and not any(alive[earlier] for earlier in twins)
        kept = torch.tensor(alive, device=weight.device).reshape(-1, *(1 for _ in weight.shape[1:]))
        return torch.where(kept, weight, 0.0)


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Sparse weights with at most 2^bits values beside zero in every layer, by k-means."""

    within: Sparse
    bits: int = 8

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def contract(self) -> BudgetContract:
        """A value may move to zero only by chance."""
        return self.within.contract

    def free(self, weights: Mapping[str, Tensor], density: float) -> frozenset[str]:
        """Every layer has few values."""
        self.within.free(weights, density)
        return frozenset()

    def __call__(self, weights: Mapping[str, Tensor], density: float) -> dict[str, Tensor]:
        """Return the sparse weights with few values."""
        return {name: quantise(weight, levels(self.bits)) for name, weight in self.within(weights, density).items()}


def free_layers(constraint: ConstraintSet, weights: Mapping[str, Tensor], density: float) -> frozenset[str]:
    """Return the layers of which every weight may be kept as it is: what a set's method `free` says, if it has one.

    Raises ConfigError where the set finds that it cannot hold the density.
    """
    free = getattr(constraint, "free", None)
    return frozenset() if free is None else free(weights, density)


def foreign_set(reference: str, options: Mapping[str, object]) -> ConstraintSet:
    """Return the set that a user's "package.module:factory" makes of the options; raises ConfigError."""
    made = make_one(
        "set",
        reference,
        options,
        fits=lambda each: callable(each) and getattr(each, "contract", None) in get_args(BudgetContract),
        expected="a factory that returns set(weights, density) -> weights, with a contract: "
        + ", ".join(get_args(BudgetContract)),
        remedy="define both, as gossamer.sparsity.sets.ConstraintSet describes them",
    )
    return cast("ConstraintSet", made)


def check_bits(bits: int) -> int:
    """Return a number of bits between 1 and 8; raises ConfigError."""
    if 1 <= bits <= 8:
        return bits
    raise ConfigError("method.bits", expected="between 1 and 8 bits a weight", got=bits, remedy="write 8, or 1")
