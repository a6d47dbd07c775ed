"""Which few steps compute a graph in C? Weighted sums with what follows them, and simple passes over maps.

Every map is (channels, rows, columns); features are channels of one cell. A convolution or linear layer becomes one
`Weighted` step: a weight reads the cell at a fixed (row, column) offset from the cell it helps to make. Strides vanish:
a `Copy` for each phase parts the map into one plane for every residue of rows and columns that is read, and the
offsets count in those. A sum with a map that is ready and a clip are done while a result is still in registers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.deploy.graph import Pair
from gossamer.errors import ConfigError

Floats: TypeAlias = NDArray[np.float32]
Cells: TypeAlias = tuple[int, int, int]
"""Channels, rows, columns."""

INFINITE = (-math.inf, math.inf)


@dataclass(frozen=True, order=True)
class Read:
    """Where a weight reads: which phase of a channel, and how many rows and columns from the cell that is made."""

    phase: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Weighted:
    """Sums of weight times what is read, a bias, perhaps another map; clipped. weight: (out, in / groups, reads)."""

    name: str
    source: str
    target: str
    weight: Floats
    bias: Floats
    reads: Sequence[Read]
    phases: int = 1
    groups: int = 1
    addend: str | None = None
    limits: tuple[float, float] = INFINITE


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaled:
    """scale * x + shift of each channel, clipped; None: not scaled."""

    name: str
    source: str
    target: str
    scale: Floats | None = None
    shift: Floats | None = None
    limits: tuple[float, float] = INFINITE


@dataclass(frozen=True, kw_only=True)
class Summed:
    """The sum of maps of one shape, clipped."""

    name: str
    sources: Sequence[str]
    target: str
    limits: tuple[float, float] = INFINITE


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A rectangle of every channel: from `start` on, every `step`-th cell, to `place`. What else the plane has is 0.

    Channel c goes to plane first + c * every.
    """

    name: str
    source: str
    target: str
    size: Pair
    start: Pair = (0, 0)
    step: Pair = (1, 1)
    place: Pair = (0, 0)
    first: int = 0
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Clear:
    """Zeros in planes first to first + count."""

    name: str
    target: str
    first: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The largest value or the mean of windows; `above` and `left` margins are outside the map."""

    name: str
    source: str
    target: str
    kind: Literal["max", "mean"]
    window: Pair
    stride: Pair
    above: int
    left: int
    counts_margins: bool


@dataclass(frozen=True, kw_only=True)
class Flattened:
    """A map as features."""

    name: str
    source: str
    target: str


Step: TypeAlias = Weighted | Scaled | Summed | Copy | Clear | Pooled | Flattened


@dataclass(frozen=True, kw_only=True)
class Program:
    """Steps in the order in which they run, the shapes of all maps, and which maps are the image and the logits."""

    input: str
    output: str
    maps: Mapping[str, Cells]
    steps: Sequence[Step]


def sources(step: Step) -> Sequence[str]:
    """Return the names of the maps that a step reads."""
    if isinstance(step, Summed):
        return step.sources
    if isinstance(step, Clear):
        return ()
    addend = step.addend if isinstance(step, Weighted) else None
    return (step.source,) if addend is None else (step.source, addend)


def refuse(node: str, *, expected: str, got: object, remedy: str) -> ConfigError:
    """Return the error about a node that C cannot express."""
    return ConfigError(f"export of node {node} to C", expected=expected, got=got, remedy=remedy)
