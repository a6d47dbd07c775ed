"""What is a network to an exporter? Steps over named maps, each one of a few operations with its constants.

A map is (C, H, W) or (F,) for one image; the images of a batch never meet. Constants are float32 tensors on the CPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
Margins: TypeAlias = tuple[int, int, int, int]
"""Rows above, rows below, columns left, columns right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution:
    """Weighted sums of neighbours. weight: (out, in / groups, rows, columns); bias: (out,); outside the map is 0."""

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    margins: Margins = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """Weighted sums of features. weight: (out, in); bias: (out,)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Affine:
    """scale * x + shift of every channel or feature: batch norm, normalisation. scale, shift: (C,)."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Values below low or above high are set there; ReLU is low 0, high infinity."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The largest value or the mean of each window. counts_margins: whether a mean divides by the cells outside too."""

    kind: Literal["max", "mean"]
    window: Pair
    stride: Pair
    margins: Margins = (0, 0, 0, 0)
    counts_margins: bool = True


@dataclass(frozen=True, kw_only=True)
class Add:
    """The sum of two or more maps of one shape."""


@dataclass(frozen=True, kw_only=True)
class Concatenate:
    """Maps one behind the other, along channels or features."""


@dataclass(frozen=True, kw_only=True)
class Thin:
    """Every so many rows and columns, from the first on."""

    step: Pair


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Zeros around a map: channels before and after, and margins."""

    channels: Pair = (0, 0)
    margins: Margins = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """(C, H, W) to (C * H * W,), row by row of channel by channel."""


Operation: TypeAlias = Convolution | Linear | Affine | Clip | Pool | Add | Concatenate | Thin | Pad | Flatten


@dataclass(frozen=True, kw_only=True)
class Node:
    """One step: what it makes, of what. shape: of its map, without the batch."""

    name: str
    operation: Operation
    inputs: Sequence[str]
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network: each node comes after its inputs. input: the image's name; output: the name of the logits."""

    input: str
    shape: Shape
    nodes: Sequence[Node]
    output: str

    def users(self) -> dict[str, list[Node]]:
        """Return who reads each map."""
        found: dict[str, list[Node]] = {self.input: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node)
        return found

    def shapes(self) -> dict[str, Shape]:
        """Return the shape of every map."""
        return {self.input: self.shape, **{node.name: node.shape for node in self.nodes}}


def constants(operation: Operation) -> Mapping[str, Tensor]:
    """Return the tensors of an operation, by the names of its fields."""
    return {name: value for name, value in vars(operation).items() if isinstance(value, Tensor)}
