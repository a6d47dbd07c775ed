"""Which channels can go? All but those that the logits need and that no reader can hold as a constant.

A channel stays where a kept output of a convolution or linear layer weighs it, unless it is one number all over that
goes into the reader's bias. Steps that treat channels one by one (affine, clip, pool, thinning, sum, depth-wise
convolution) keep the same channels on both sides, so that a channel of a sum goes only where all summands lose it.
Other grouped convolutions keep all of theirs, as do the image and the logits. A map that is read keeps at least one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from gossamer.deploy import interpret
from gossamer.deploy.constancy import Constancy, constancy, takes_in, ties
from gossamer.deploy.graph import (
    Add,
    Affine,
    Concatenate,
    Convolution,
    Flatten,
    Graph,
    Linear,
    Node,
    Operation,
    Pad,
    Pool,
    Shape,
)
from gossamer.deploy.rewriting import Edit, apply

Kept: TypeAlias = dict[str, Tensor]
Knowledge: TypeAlias = Mapping[str, Constancy]


def remove_channels(graph: Graph) -> Graph:
    """Return the graph without channels that can go and steps that nobody reads; the same object where all stay."""
    known = constancy(graph)
    kept = _kept(graph, known)
    if all(bool(channels.all()) for channels in kept.values()):
        return graph
    nodes = [_narrowed(node, kept, known) for node in graph.nodes if bool(kept[node.name].any())]
    return replace(graph, nodes=tuple(nodes))


def constants_out_of_sums(graph: Graph) -> Graph:
    """Return the graph with every summand that is one number a channel turned into a shift of the other summand."""
    known = constancy(graph)
    edits = {node.name: [_shifted(node, known)] for node in graph.nodes if _has_constant_summand(node, known)}
    return apply(graph, Edit(replaced=edits)) if edits else graph


def constant_logits(graph: Graph) -> Graph:
    """Return a network whose logits no image changes as a mean, a Flatten and a Linear without weights but a bias."""
    if _is_bare(graph) or not bool(constancy(graph)[graph.output].fixed.all()):
        return graph
    channels, *size = graph.shape
    window = (size[0], size[1])
    logits = interpret.run(graph, torch.zeros(1, *graph.shape, dtype=torch.float64))[0]
    linear = Linear(weight=logits.new_zeros(len(logits), channels), bias=logits)
    pool = Pool(kind="mean", window=window, stride=window)
    mean, flat = f"{graph.output}_mean", f"{graph.output}_flat"
    nodes = (
        Node(name=mean, operation=pool, inputs=(graph.input,), shape=(channels, 1, 1)),
        Node(name=flat, operation=Flatten(), inputs=(mean,), shape=(channels,)),
        Node(name=graph.output, operation=linear, inputs=(flat,), shape=logits.shape),
    )
    return replace(graph, nodes=nodes)


def _is_bare(graph: Graph) -> bool:
    *before, last = [node.operation for node in graph.nodes]
    return (
        isinstance(last, Linear)
        and not bool(last.weight.any())
        and all(isinstance(operation, Pool | Flatten) for operation in before)
    )


def _has_constant_summand(node: Node, known: Knowledge) -> bool:
    constant = [bool(known[name].uniform.all()) for name in node.inputs]
    return isinstance(node.operation, Add) and len(constant) == 2 and sum(constant) == 1


def _shifted(node: Node, known: Knowledge) -> Node:
    constant, other = sorted(node.inputs, key=lambda name: not bool(known[name].uniform.all()))
    shift = known[constant].value
    return replace(node, operation=Affine(scale=torch.ones_like(shift), shift=shift), inputs=(other,))


def _kept(graph: Graph, known: Knowledge) -> Kept:
    """Return the least set of channels, of every map, that satisfies all steps: it grows until none asks for more."""
    kept = {name: torch.zeros(shape[0], dtype=torch.bool) for name, shape in graph.shapes().items()}
    kept[graph.input][:] = True
    kept[graph.output][:] = True
    while True:
        before = sum(int(channels.sum()) for channels in kept.values())
        for node in reversed(graph.nodes):
            _NEEDS.get(type(node.operation), _alike)(node, kept, known)
        for node in graph.nodes:
            _never_empty(node, kept)
        if sum(int(channels.sum()) for channels in kept.values()) == before:
            return kept


def _weighted(node: Node, kept: Kept, known: Knowledge) -> None:
    operation: Any = node.operation
    source = node.inputs[0]
    if isinstance(operation, Convolution) and operation.groups > 1:
        return _grouped(operation, node, kept)
    needed = ties(operation)[kept[node.name]].any(dim=0)
    kept[source] |= needed & ~takes_in(operation, known[source])
    return None


def _grouped(operation: Convolution, node: Node, kept: Kept) -> None:
    outputs, inputs = kept[node.name], kept[node.inputs[0]]
    if not _is_read(node, kept):
        return
    if operation.weight.shape[1] > 1:
        outputs[:] = inputs[:] = True
        return
    groups = outputs.view(operation.groups, -1)
    inputs |= groups.any(dim=1)
    groups |= inputs[:, None]


def _alike(node: Node, kept: Kept, _: Knowledge) -> None:
    if not _is_read(node, kept):
        return
    maps = [kept[node.name], *(kept[name] for name in node.inputs)]
    together = torch.stack(maps).any(dim=0)
    for channels in maps:
        channels.logical_or_(together)


def _concatenated(node: Node, kept: Kept, _: Knowledge) -> None:
    if not _is_read(node, kept):
        return
    for part, name in zip(_parts(node, kept), node.inputs, strict=True):
        part.logical_or_(kept[name])
        kept[name] |= part


def _padded(node: Node, kept: Kept, _: Knowledge) -> None:
    if not _is_read(node, kept):
        return
    source = kept[node.inputs[0]]
    inside = _inside(node, kept, len(source))
    source |= inside
    inside |= source


def _flattened(node: Node, kept: Kept, _: Knowledge) -> None:
    if not _is_read(node, kept):
        return
    source = kept[node.inputs[0]]
    features = kept[node.name].view(len(source), -1)
    source |= features.any(dim=1)
    features |= source[:, None]


def _is_read(node: Node, kept: Kept) -> bool:
    return bool(kept[node.name].any())


def _never_empty(node: Node, kept: Kept) -> None:
    if not _is_read(node, kept) or any(bool(kept[name].any()) for name in node.inputs):
        return
    kept[node.inputs[0]][0] = True


def _parts(node: Node, kept: Kept) -> tuple[Tensor, ...]:
    return kept[node.name].split([len(kept[name]) for name in node.inputs])


def _inside(node: Node, kept: Kept, channels: int) -> Tensor:
    before = cast("Pad", node.operation).channels[0]
    return kept[node.name][before : before + channels]


_NEEDS: Mapping[type[Operation], Callable[[Node, Kept, Knowledge], None]] = {
    Convolution: _weighted,
    Linear: _weighted,
    Concatenate: _concatenated,
    Pad: _padded,
    Flatten: _flattened,
}


def _narrowed(node: Node, kept: Kept, known: Knowledge) -> Node:
    outputs = kept[node.name]
    shape: Shape = (int(outputs.sum()), *node.shape[1:])
    inputs = [name for name in node.inputs if bool(kept[name].any())]
    return replace(node, operation=_operation(node, kept, known), inputs=tuple(inputs), shape=shape)


def _operation(node: Node, kept: Kept, known: Knowledge) -> Operation:
    operation, outputs, inputs = node.operation, kept[node.name], kept[node.inputs[0]]
    match operation:
        case Convolution(groups=groups) if groups > 1:
            fewer = groups if operation.weight.shape[1] > 1 else int(inputs.sum())
            return replace(operation, weight=operation.weight[outputs], bias=operation.bias[outputs], groups=fewer)
        case Convolution() | Linear():
            return _fewer_weights(operation, inputs, outputs, known[node.inputs[0]].value)
        case Affine():
            return Affine(scale=operation.scale[outputs], shift=operation.shift[outputs])
        case Pad(channels=(before, behind)):
            first, last = outputs[:before], outputs[len(outputs) - behind :]
            return replace(operation, channels=(int(first.sum()), int(last.sum())))
        case _:
            return operation


def _fewer_weights(operation: Convolution | Linear, inputs: Tensor, outputs: Tensor, value: Tensor) -> Operation:
    weight = operation.weight[outputs]
    taps = math.prod(weight.shape[2:])
    gone = weight[:, ~inputs].reshape(len(weight), -1, taps).sum(dim=2)
    bias = operation.bias[outputs] + gone @ value[~inputs]
    return replace(operation, weight=weight[:, inputs], bias=bias)
