"""Which neighbouring steps can be one, and which do nothing? Each rule looks at one node and its sources.

All of it is exact in real arithmetic; constants are float64 while rules run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

from torch import Tensor

from gossamer.deploy.constancy import beside_weights
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
    Node,
    Pad,
    Pool,
    Shape,
    Thin,
)

NO_MARGINS = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change to a graph: nodes replaced by others in their place, and maps whose readers turn to another map."""

    replaced: Mapping[str, Sequence[Node]] = field(default_factory=dict[str, Sequence[Node]])
    instead: Mapping[str, str] = field(default_factory=dict[str, str])


class Scene:
    """A graph as rules see it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._users = graph.users()
        self.shapes: Mapping[str, Shape] = graph.shapes()

    def source(self, node: Node, kind: type | tuple[type, ...]) -> Node | None:
        """Return the node that makes what this one reads, where it is of that kind."""
        found = self._nodes.get(node.inputs[0])
        return found if found is not None and isinstance(found.operation, kind) else None

    def only_source(self, node: Node, kind: type | tuple[type, ...]) -> Node | None:
        """Return the same, where nothing else reads it."""
        found = self.source(node, kind)
        if found is None or len(self._users[found.name]) > 1 or found.name == self._graph.output:
            return None
        return found


Rule: TypeAlias = Callable[[Node, Scene], Edit | None]


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Return the graph after every edit that any of the rules asks for, the same object where none does."""
    while edit := _first_edit(graph, rules):
        graph = apply(graph, edit)
    return graph


def apply(graph: Graph, edit: Edit) -> Graph:
    """Return the graph after an edit; steps whose readers turned away are gone."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name not in edit.instead or node.name in edit.replaced:
            nodes.extend(edit.replaced.get(node.name, (node,)))
    renamed = [replace(node, inputs=tuple(_followed(name, edit.instead) for name in node.inputs)) for node in nodes]
    return replace(graph, nodes=tuple(renamed), output=_followed(graph.output, edit.instead))


def affine_into_layer_before(node: Node, scene: Scene) -> Edit | None:
    """scale * (W x + b) + shift = (scale W) x + (scale b + shift), where nothing else reads W x + b."""
    source = scene.only_source(node, (Convolution, Linear))
    if not isinstance(node.operation, Affine) or source is None:
        return None
    layer, scale = cast("Any", source.operation), node.operation.scale
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    folded = replace(layer, weight=weight, bias=layer.bias * scale + node.operation.shift)
    return _merged(source, folded, gone=node)


def affines_into_one(node: Node, scene: Scene) -> Edit | None:
    """Two affines in a row are one, where nothing reads what lies between."""
    source = scene.only_source(node, Affine)
    if not isinstance(node.operation, Affine) or source is None:
        return None
    first, second = cast("Affine", source.operation), node.operation
    joined = Affine(scale=second.scale * first.scale, shift=second.scale * first.shift + second.shift)
    return _merged(source, joined, gone=node)


def affine_into_layer_behind(node: Node, scene: Scene) -> Edit | None:
    """W (scale x + shift) + b = (W scale) x + (b + W shift), also through a Flatten.

    Not where a convolution has margins and a shift is not 0: its zeros lie behind the affine, and would lie before it.
    """
    layer = node.operation
    if not isinstance(layer, Convolution | Linear):
        return None
    flatten = scene.only_source(node, Flatten)
    source = scene.only_source(flatten or node, Affine)
    if source is None:
        return None
    scale, shift = (_per_input(value, layer, node, scene) for value in _constants(source))
    if isinstance(layer, Convolution) and layer.margins != NO_MARGINS and bool(shift.any()):
        return None
    per = (*scale.shape, *[1] * (layer.weight.ndim - 2))
    bias = layer.bias + (layer.weight * shift.view(per)).flatten(1).sum(dim=1)
    folded = replace(layer, weight=layer.weight * scale.view(per), bias=bias)
    return Edit(replaced={node.name: [replace(node, operation=folded)]}, instead={source.name: source.inputs[0]})


def affine_before_flatten(node: Node, scene: Scene) -> Edit | None:
    """An affine over the features of one-pixel maps goes before the Flatten, to the convolution it can fold into."""
    flatten = scene.only_source(node, Flatten)
    if not isinstance(node.operation, Affine) or flatten is None:
        return None
    layer = scene.only_source(flatten, Convolution)
    if layer is None or layer.shape[1:] != (1, 1):
        return None
    before = replace(node, name=flatten.name, inputs=flatten.inputs, shape=layer.shape)
    behind = replace(flatten, name=node.name, inputs=(flatten.name,))
    return Edit(replaced={flatten.name: [before], node.name: [behind]})


def clips_into_one(node: Node, scene: Scene) -> Edit | None:
    """Two clips in a row are one; a clip that only repeats what the one before did is none."""
    source = scene.source(node, Clip)
    if not isinstance(node.operation, Clip) or source is None:
        return None
    first, second = cast("Clip", source.operation), node.operation
    low, high = (min(max(end, second.low), second.high) for end in (first.low, first.high))
    if (low, high) == (first.low, first.high):
        return Edit(instead={node.name: source.name})
    if scene.only_source(node, Clip) is None:
        return None
    return _merged(source, Clip(low=low, high=high), gone=node)


def thins_into_one(node: Node, scene: Scene) -> Edit | None:
    """Every a-th of every b-th row is every a*b-th."""
    source = scene.only_source(node, Thin)
    if not isinstance(node.operation, Thin) or source is None:
        return None
    first, second = cast("Thin", source.operation).step, node.operation.step
    joined = replace(source, operation=Thin(step=(first[0] * second[0], first[1] * second[1])), shape=node.shape)
    return Edit(replaced={source.name: [joined]}, instead={node.name: source.name})


def margins_into_convolution(node: Node, scene: Scene) -> Edit | None:
    """Zeros around a map are margins of the convolution that reads it."""
    source = scene.source(node, Pad)
    if not isinstance(node.operation, Convolution) or source is None:
        return None
    pad = cast("Pad", source.operation)
    if pad.channels != (0, 0):
        return None
    margins = cast("Margins", tuple(a + b for a, b in zip(pad.margins, node.operation.margins, strict=True)))
    wider = replace(node.operation, margins=margins)
    return Edit(replaced={node.name: [replace(node, operation=wider, inputs=source.inputs)]})


def nothing(node: Node, _: Scene) -> Edit | None:
    """A step that gives its input back is left out."""
    return Edit(instead={node.name: node.inputs[0]}) if _does_nothing(node) else None


RULES: Sequence[Rule] = (
    affine_before_flatten,
    affine_into_layer_before,
    affines_into_one,
    affine_into_layer_behind,
    clips_into_one,
    thins_into_one,
    margins_into_convolution,
    nothing,
)


def _first_edit(graph: Graph, rules: Sequence[Rule]) -> Edit | None:
    scene = Scene(graph)
    edits = (rule(node, scene) for rule in rules for node in graph.nodes)
    return next((edit for edit in edits if edit is not None), None)


def _followed(name: str, instead: Mapping[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name


def _merged(source: Node, operation: Any, *, gone: Node) -> Edit:
    return Edit(replaced={source.name: [replace(source, operation=operation)]}, instead={gone.name: source.name})


def _constants(source: Node) -> tuple[Tensor, Tensor]:
    operation = cast("Affine", source.operation)
    return operation.scale, operation.shift


def _per_input(value: Tensor, layer: Convolution | Linear, node: Node, scene: Scene) -> Tensor:
    if isinstance(layer, Linear):
        value = value.repeat_interleave(math.prod(scene.shapes[node.inputs[0]]) // len(value))
    return beside_weights(value, layer)


def _does_nothing(node: Node) -> bool:
    idle = False
    match node.operation:
        case Affine(scale=scale, shift=shift):
            idle = bool((scale == 1).all()) and not bool(shift.any())
        case Clip(low=low, high=high):
            idle = (low, high) == (-math.inf, math.inf)
        case Pool(window=window, stride=stride, margins=margins):
            idle = window == stride == (1, 1) and margins == NO_MARGINS
        case Thin(step=step):
            idle = step == (1, 1)
        case Pad(channels=channels, margins=margins):
            idle = channels == (0, 0) and margins == NO_MARGINS
        case Add() | Concatenate():
            idle = len(node.inputs) == 1
        case _:
            pass
    return idle
