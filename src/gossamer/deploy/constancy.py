"""Which channels are the same for every image? Those that no chain of weights other than zero ties to the image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gossamer.deploy.graph import (
    Add,
    Affine,
    Clip,
    Concatenate,
    Convolution,
    Flatten,
    Graph,
    Linear,
    Node,
    Operation,
    Pad,
    Pool,
    Thin,
)


@dataclass(frozen=True, kw_only=True)
class Constancy:
    """What of a map is known before the image is.

    fixed: (C,) bool, channels that do not depend on the image; uniform: (C,) bool, those of them that are one number
    all over (a convolution's margins make others vary towards the border); value: (C,) float64, that number, else 0.
    """

    fixed: Tensor
    uniform: Tensor
    value: Tensor

    @property
    def outlasts_margins(self) -> Tensor:
        """(C,) bool: channels that are zero all over, and stay so with zeros around them."""
        return self.uniform & (self.value == 0)


Sources: TypeAlias = Sequence[Constancy]


def constancy(graph: Graph) -> dict[str, Constancy]:
    """Return what is known of every map of a graph of float64 constants."""
    unknown = torch.zeros(graph.shape[0], dtype=torch.bool)
    known = {graph.input: Constancy(fixed=unknown, uniform=unknown, value=unknown.to(torch.float64))}
    for node in graph.nodes:
        known[node.name] = _RULES[type(node.operation)](node, [known[name] for name in node.inputs])
    return known


def ties(operation: Convolution | Linear) -> Tensor:
    """Return (out, in / groups) bool: whether any weight of this output on this input is not zero."""
    return operation.weight.reshape(*operation.weight.shape[:2], -1).ne(0).any(dim=2)


def beside_weights(value: Tensor, operation: Convolution | Linear) -> Tensor:
    """Return numbers of input channels, (in,), as (out, in / groups), each next to the weights that read it."""
    groups = operation.groups if isinstance(operation, Convolution) else 1
    return value.view(groups, -1).repeat_interleave(len(operation.weight) // groups, dim=0)


def takes_in(operation: Operation, known: Constancy) -> Tensor:
    """Return (C,) bool: input channels whose constants this convolution or linear layer can hold in its bias."""
    bordered = isinstance(operation, Convolution) and any(operation.margins)
    return known.outlasts_margins if bordered else known.uniform


def _constancy(fixed: Tensor, uniform: Tensor, value: Tensor) -> Constancy:
    return Constancy(fixed=fixed, uniform=uniform, value=torch.where(uniform, value, 0.0))


def _weighted(node: Node, sources: Sources) -> Constancy:
    operation: Any = node.operation
    tied = ties(operation)
    sums = operation.weight.reshape(*tied.shape, -1).sum(dim=2)
    return _constancy(
        fixed=~(tied & beside_weights(~sources[0].fixed, operation)).any(dim=1),
        uniform=~(tied & beside_weights(~takes_in(operation, sources[0]), operation)).any(dim=1),
        value=operation.bias + (sums * beside_weights(sources[0].value, operation)).sum(dim=1),
    )


def _affine(node: Node, sources: Sources) -> Constancy:
    operation: Any = node.operation
    nothing = operation.scale == 0
    value = operation.scale * sources[0].value + operation.shift
    return _constancy(sources[0].fixed | nothing, sources[0].uniform | nothing, value)


def _clip(node: Node, sources: Sources) -> Constancy:
    operation: Any = node.operation
    return _constancy(sources[0].fixed, sources[0].uniform, sources[0].value.clamp(operation.low, operation.high))


def _pool(node: Node, sources: Sources) -> Constancy:
    operation: Any = node.operation
    bordered = operation.kind == "mean" and operation.counts_margins and any(operation.margins)
    return _bordered(sources[0]) if bordered else sources[0]


def _add(_: Node, sources: Sources) -> Constancy:
    fixed, uniform, value = (torch.stack(parts) for parts in _parts(sources))
    return _constancy(fixed.all(dim=0), uniform.all(dim=0), value.sum(dim=0))


def _concatenate(_: Node, sources: Sources) -> Constancy:
    return _constancy(*(torch.cat(parts) for parts in _parts(sources)))


def _pad(node: Node, sources: Sources) -> Constancy:
    operation: Any = node.operation
    before, behind = (
        Constancy(fixed=zeros == 0, uniform=zeros == 0, value=zeros)
        for zeros in (torch.zeros(count, dtype=torch.float64) for count in operation.channels)
    )
    inside = _bordered(sources[0]) if any(operation.margins) else sources[0]
    return _concatenate(node, [before, inside, behind])


def _flatten(node: Node, sources: Sources) -> Constancy:
    pixels = node.shape[0] // len(sources[0].fixed)
    return _constancy(*(part[0].repeat_interleave(pixels) for part in _parts(sources)))


def _thin(_: Node, sources: Sources) -> Constancy:
    return sources[0]


def _bordered(source: Constancy) -> Constancy:
    return _constancy(source.fixed, source.outlasts_margins, source.value)


def _parts(sources: Sources) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    return [known.fixed for known in sources], [known.uniform for known in sources], [known.value for known in sources]


_RULES: Mapping[type[Operation], Callable[[Node, Sources], Constancy]] = {
    Convolution: _weighted,
    Linear: _weighted,
    Affine: _affine,
    Clip: _clip,
    Pool: _pool,
    Add: _add,
    Concatenate: _concatenate,
    Thin: _thin,
    Pad: _pad,
    Flatten: _flatten,
}
