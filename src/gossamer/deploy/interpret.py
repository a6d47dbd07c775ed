"""What does a graph compute? Each operation in torch, one after the other: the yardstick of every artifact."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
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
    Margins,
    Operation,
    Pad,
    Pool,
    Thin,
)

Maps: TypeAlias = Sequence[Tensor]


def run(graph: Graph, x: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, C, H, W), in the precision of x."""
    return maps(graph, x)[graph.output]


@torch.no_grad()
def maps(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """Return every map of these images, (N, ...) each, in the precision of x."""
    values: dict[str, Tensor] = {graph.input: x}
    for node in graph.nodes:
        values[node.name] = apply(node.operation, [values[name] for name in node.inputs])
    return values


def apply(operation: Operation, inputs: Maps) -> Tensor:
    """Return what one operation makes of maps (N, ...)."""
    return _COMPUTE[type(operation)](operation, inputs)


def _convolve(operation: Convolution, inputs: Maps) -> Tensor:
    x = F.pad(inputs[0], _sides(operation.margins))
    weight, bias = operation.weight.to(x.dtype), operation.bias.to(x.dtype)
    return F.conv2d(x, weight, bias, operation.stride, 0, operation.dilation, operation.groups)


def _linear(operation: Linear, inputs: Maps) -> Tensor:
    return F.linear(inputs[0], operation.weight.to(inputs[0].dtype), operation.bias.to(inputs[0].dtype))


def _affine(operation: Affine, inputs: Maps) -> Tensor:
    x = inputs[0]
    per = (-1, *[1] * (x.ndim - 2))
    return operation.scale.to(x.dtype).view(per) * x + operation.shift.to(x.dtype).view(per)


def _clip(operation: Clip, inputs: Maps) -> Tensor:
    return inputs[0].clamp(operation.low, operation.high)


def _pool(operation: Pool, inputs: Maps) -> Tensor:
    x, sides = inputs[0], _sides(operation.margins)
    if operation.kind == "max":
        return F.max_pool2d(F.pad(x, sides, value=-torch.inf), operation.window, operation.stride)
    mean = F.avg_pool2d(F.pad(x, sides), operation.window, operation.stride)
    if operation.counts_margins:
        return mean
    return mean / F.avg_pool2d(F.pad(torch.ones_like(x[:1]), sides), operation.window, operation.stride)


def _add(_: Add, inputs: Maps) -> Tensor:
    return torch.stack(list(inputs)).sum(dim=0)


def _concatenate(_: Concatenate, inputs: Maps) -> Tensor:
    return torch.cat(list(inputs), dim=1)


def _thin(operation: Thin, inputs: Maps) -> Tensor:
    return inputs[0][:, :, :: operation.step[0], :: operation.step[1]]


def _pad(operation: Pad, inputs: Maps) -> Tensor:
    return F.pad(inputs[0], (*_sides(operation.margins), *operation.channels))


def _flatten(_: Flatten, inputs: Maps) -> Tensor:
    return inputs[0].flatten(1)


def _sides(margins: Margins) -> Margins:
    above, below, left, right = margins
    return left, right, above, below


_COMPUTE: Mapping[type[Operation], Callable[[Any, Maps], Tensor]] = {
    Convolution: _convolve,
    Linear: _linear,
    Affine: _affine,
    Clip: _clip,
    Pool: _pool,
    Add: _add,
    Concatenate: _concatenate,
    Thin: _thin,
    Pad: _pad,
    Flatten: _flatten,
}
