"""In which shapes may weights be kept? Single weights, columns, filters, blocks, N of every M: the patterns, by name.

A pattern chooses masks, given scores and a budget. With magnitudes as scores, keeping what it chooses and zeroing the
rest is the Euclidean projection onto the weights that have the pattern and the budget.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from gossamer.errors import ConfigError
from gossamer.plugins import is_reference, make_function
from gossamer.sparsity.budgets import Budget, Shapes, divide, total_budget
from gossamer.sparsity.choose import best_of_all, best_of_each, choose
from gossamer.sparsity.masks import Masks

PatternSpec: TypeAlias = str | Mapping[str, object]


class Pattern(Protocol):
    """A shape in which weights are kept or dropped together; two are equal where their fields are."""

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        """Return which weights are kept; scores: >= 0, of every layer in its kernel's shape.

        budget: what each layer may keep; None: int(density * N) of the whole network compete. Raises ConfigError.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Irregular:
    """Every weight by itself; keeps the budget exactly."""

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        """Return the weights of the highest scores."""
        return choose(scores, density, budget)


IRREGULAR = Irregular()


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Rectangles of the matrix (C_out, everything else) of a kernel: the tiles with the highest mean square score.

    height: rows of a tile, outputs; width: columns, inputs and positions within the filter; None: all of them. Kept are
    as many whole tiles as fit into the budget, best first. Tiles at the edge may be smaller; where all are equal, this
    is the exact projection.
    """

    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            if side is not None and side < 1:
                raise ConfigError(f"method.pattern.{name}", expected="at least 1", got=side, remedy="write 4, say")

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        """Return the tiles that are kept; raises ConfigError where a layer's budget is smaller than any tile."""
        means = {name: self._means(score) for name, score in scores.items()}
        if budget is None:
            keep = total_budget({name: score.numel() for name, score in scores.items()}, density)
            sizes = torch.cat([self._sizes(score).flatten() for score in scores.values()])
            kept = _first_that_fit(torch.cat([mean.flatten() for mean in means.values()]), sizes, keep)
            parts = kept.split([mean.numel() for mean in means.values()])
            chosen = {name: part.reshape(means[name].shape) for name, part in zip(means, parts, strict=True)}
        else:
            counts = divide(budget, {name: tuple(score.shape) for name, score in scores.items()}, density)
            chosen = {name: self._best(name, scores[name], mean, counts[name]) for name, mean in means.items()}
        return Masks({name: self._spread(chosen[name], score) for name, score in scores.items()})

    def _best(self, name: str, score: Tensor, mean: Tensor, count: int) -> Tensor:
        sizes = self._sizes(score)
        if 0 < count < int(sizes.min()):
            raise ConfigError(
                f"method.density for {name}",
                expected=f"room for one tile of {int(sizes.min()):,} weights",
                got=f"a budget of {count:,}",
                remedy="raise the density, give the layer more in method.budget, or choose smaller tiles",
            )
        return _first_that_fit(mean.flatten(), sizes.flatten(), count).reshape(mean.shape)

    def _sides(self, matrix: Tensor) -> tuple[int, int]:
        rows, columns = matrix.shape
        return min(self.height or rows, rows), min(self.width or columns, columns)

    def _sums(self, matrix: Tensor) -> Tensor:
        """Return the sum over each tile of a matrix: (tiles down, tiles across)."""
        rows, columns = matrix.shape
        height, width = self._sides(matrix)
        whole = pad(matrix, (0, -columns % width, 0, -rows % height))
        return whole.reshape(whole.shape[0] // height, height, whole.shape[1] // width, width).sum((1, 3))

    def _sizes(self, score: Tensor) -> Tensor:
        return self._sums(torch.ones_like(_matrix(score), dtype=torch.int64))

    def _means(self, score: Tensor) -> Tensor:
        # Squares of small float32 magnitudes underflow.
        return self._sums(_matrix(score).double().square()) / self._sizes(score)

    def _spread(self, chosen: Tensor, score: Tensor) -> Tensor:
        matrix = _matrix(score)
        height, width = self._sides(matrix)
        whole = chosen.repeat_interleave(height, 0).repeat_interleave(width, 1)
        return whole[: matrix.shape[0], : matrix.shape[1]].reshape(score.shape)


@dataclass(frozen=True, kw_only=True)
class NofM:
    """At most n of every m weights that follow one another along the input channels, as accelerators want them.

    Where the channels are no multiple of m, the last group counts as filled up with zeros. A budget below n / m keeps
    the best of what the pattern admits: greedy is exact here.
    """

    n: int = 2
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise ConfigError(
                "method.pattern", expected="n of m with 1 <= n <= m", got=f"{self.n}:{self.m}", remedy="write 2:4"
            )

    @property
    def most(self) -> float:
        """The highest density there is: n / m."""
        return self.n / self.m

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        """Return the weights that are kept; raises ConfigError for a density above n / m."""
        if density > self.most:
            raise ConfigError(
                "method.density",
                expected=f"at most {self.most:g}, which is all that {self.n}:{self.m} admits",
                got=density,
                remedy=f"write density: {self.most:g}",
            )
        admitted = {name: self._admit(score) for name, score in scores.items()}
        within = {name: torch.where(admitted[name], score, -torch.inf) for name, score in scores.items()}
        if budget is None:
            total = total_budget({name: score.numel() for name, score in scores.items()}, density)
            return best_of_all(within, min(total, sum(int(each.sum()) for each in admitted.values())))
        counts = divide(budget, {name: tuple(score.shape) for name, score in scores.items()}, density)
        return best_of_each(within, {name: min(counts[name], int(each.sum())) for name, each in admitted.items()})

    def _admit(self, score: Tensor) -> Tensor:
        along = score.movedim(1, -1)
        groups = pad(along, (0, -along.shape[-1] % self.m), value=-torch.inf).unflatten(-1, (-1, self.m))
        best = groups.argsort(dim=-1, descending=True, stable=True)[..., : self.n]
        chosen = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, best, True).flatten(-2)
        return chosen[..., : along.shape[-1]].movedim(-1, 1)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A pattern of another package, whose masks are looked at before they are used."""

    within: Pattern

    def __call__(self, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
        """Return its masks; raises ConfigError where they are not of these layers and shapes."""
        masks = self.within(scores, density, budget)
        wanted = {name: tuple(score.shape) for name, score in scores.items()}
        given = {name: tuple(mask.shape) for name, mask in masks.items()}
        if given != wanted:
            raise ConfigError(
                "method.pattern", expected=f"masks of {wanted}", got=given, remedy="mend the pattern's __call__"
            )
        return Masks(masks)


PATTERNS: Mapping[str, Callable[..., Pattern]] = {
    "irregular": Irregular,
    "column": partial(Tiles, width=1),
    "filter": partial(Tiles, height=1),
    "block": Tiles,
    "n-of-m": NofM,
}
_OPTIONS: Mapping[str, tuple[str, ...]] = {"block": ("height", "width"), "n-of-m": ("n", "m")}
_N_OF_M = re.compile(r"(\d+):(\d+)")


def pattern(spec: PatternSpec) -> Pattern:
    """Return a pattern by name, as "2:4", or from {"name": ..., and its options}; raises ConfigError.

    A name may be a user's "package.module:factory", which is called with the options.
    """
    options = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = options.pop("name", None)
    if isinstance(name, str) and (found := _N_OF_M.fullmatch(name)) and not options:
        return NofM(n=int(found[1]), m=int(found[2]))
    if isinstance(name, str) and is_reference(name):
        made = make_function("pattern", name, "pattern(scores, density, budget) -> masks", options)
        return Foreign(within=cast("Pattern", made))
    if not isinstance(name, str) or name not in PATTERNS:
        raise ConfigError(
            "method.pattern",
            expected=f"one of {', '.join(PATTERNS)}, 2:4, {{name: block, height: 4, width: 4}}, or "
            "package.module:factory",
            got=repr(spec),
            remedy="choose one of them",
        )
    known = _OPTIONS.get(name, ())
    wrong = [each for each, value in options.items() if each not in known or not isinstance(value, int)]
    if wrong or (name == "block" and set(options) != set(known)):
        raise ConfigError(
            "method.pattern",
            expected=f"whole numbers for {' and '.join(known)}" if known else f"no options for {name}",
            got=repr(spec),
            remedy="write {name: block, height: 4, width: 4}, say",
        )
    return PATTERNS[name](**options)


def most_of(pattern: Pattern) -> float:
    """Return the highest density that a pattern admits: what its attribute `most` says, or everything."""
    return getattr(pattern.within if isinstance(pattern, Foreign) else pattern, "most", 1.0)


def on_the_way(pattern: Pattern, scores: Mapping[str, Tensor], density: float, budget: Budget | None) -> Masks:
    """Return what is kept at a density that is still to fall, which may be above all that the pattern admits.

    Above what it admits single weights are kept by score, those first that the pattern
    would keep, so that a dense network comes to 2:4, say, bit by bit.
    """
    most = most_of(pattern)
    if density <= most:
        return pattern(scores, density, budget)
    kept, above = pattern(scores, most, _everything), 1.0 + max(float(score.max()) for score in scores.values())
    # In float64: beside what is added, small scores would all be one in float32.
    return choose({name: score.double() + above * kept[name] for name, score in scores.items()}, density, budget)


def project(
    weights: Mapping[str, Tensor], pattern: Pattern, density: float, budget: Budget | None
) -> dict[str, Tensor]:
    """Return the nearest weights with a pattern and a budget: (any shape) per layer; what is dropped is exactly 0."""
    masks = pattern({name: weight.abs() for name, weight in weights.items()}, density, budget)
    return {name: torch.where(masks[name], weight, 0.0) for name, weight in weights.items()}


def _everything(shapes: Shapes, density: float) -> dict[str, int]:
    """A budget that leaves to the pattern what each layer keeps."""
    del density
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _matrix(kernel: Tensor) -> Tensor:
    return kernel.reshape(kernel.shape[0], math.prod(kernel.shape[1:]))


def _first_that_fit(means: Tensor, sizes: Tensor, keep: int) -> Tensor:
    order = torch.sort(means, descending=True, stable=True).indices
    kept = torch.zeros_like(means, dtype=torch.bool)
    kept[order] = sizes[order].cumsum(0) <= keep
    return kept
