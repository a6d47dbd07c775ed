"""How does a graph become steps of C? Node by node, each with the sum and clip behind it where they can be fused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gossamer.deploy.csource.program import (
    INFINITE,
    Cells,
    Clear,
    Copy,
    Flattened,
    Floats,
    Pooled,
    Program,
    Read,
    Scaled,
    Step,
    Summed,
    Weighted,
    refuse,
)
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
    Pair,
    Pool,
    Shape,
    Thin,
)


def lower(graph: Graph) -> Program:
    """Return the program of a graph. Raises ConfigError naming a node that C cannot express, and what to do."""
    builder = _Builder(graph)
    for node in graph.nodes:
        if node.name not in builder.made_by:
            builder.add(node)
    output = builder.map_of(graph.output)
    return Program(input=graph.input, output=output, maps=builder.maps, steps=builder.steps)


class _Builder:
    """Steps and maps as they come into being; made_by: the map in which the values of a node stand."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.shapes = graph.shapes()
        self.nodes = {node.name: node for node in graph.nodes}
        self.maps: dict[str, Cells] = {graph.input: _cells(graph.input, graph.shape)}
        self.made_by: dict[str, str] = {graph.input: graph.input}
        self.steps: list[Step] = []
        self.parted: dict[str, Sequence[Pair]] = {}

    def add(self, node: Node) -> None:
        _check(node, self.shapes)
        _ADD[type(node.operation)](self, node)

    def map_of(self, name: str) -> str:
        """Return the map of a node's values, flattening now where that was put off."""
        if name not in self.made_by:
            node = self.nodes[name]
            source = self.map_of(node.inputs[0])
            self.put(Flattened(name=name, source=source, target=name), self.shapes[name])
        return self.made_by[name]

    def put(self, step: Step, shape: Shape, names: Sequence[str] = ()) -> None:
        """Append a step that makes a new map, in which the values of these nodes stand."""
        self.maps[step.target] = _cells(step.target, shape)
        self.steps.append(step)
        for name in names or (step.target,):
            self.made_by[name] = step.target

    def follower(self, name: str) -> Node | None:
        """Return the only reader of a node's values, where it reads them once."""
        users = self.users[name]
        if len(users) != 1 or name == self.graph.output or list(users[0].inputs).count(name) != 1:
            return None
        return users[0]

    def absorb_sum(self, name: str) -> tuple[str, str | None]:
        """Return the last node of `name` and a sum that follows it, and the map that is added."""
        node = self.follower(name)
        if node is None or not isinstance(node.operation, Add) or len(node.inputs) != 2:
            return name, None
        other = next(source for source in node.inputs if source != name)
        if other not in self.made_by:
            return name, None
        return node.name, self.made_by[other]

    def absorb_clip(self, name: str) -> tuple[str, tuple[float, float]]:
        """Return the last node of `name` and a clip that follows it, and the limits."""
        node = self.follower(name)
        if node is None or not isinstance(node.operation, Clip):
            return name, INFINITE
        return node.name, (node.operation.low, node.operation.high)


def _add_convolution(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    weight = operation.weight.detach().numpy()
    source = builder.map_of(node.inputs[0])
    _add_weighted(builder, node, source, weight.reshape(*weight.shape[:2], -1), _places(operation))


def _add_linear(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    weight = operation.weight.detach().numpy()
    before = builder.nodes.get(node.inputs[0])
    if before is not None and before.name not in builder.made_by:
        # A flattened map is read where it stands, as by a convolution whose window is all of it.
        source = builder.map_of(before.inputs[0])
        channels, rows, columns = builder.maps[source]
        places = [(row, column) for row in range(rows) for column in range(columns)]
    else:
        source, channels, places = builder.map_of(node.inputs[0]), weight.shape[1], [(0, 0)]
    _add_weighted(builder, node, source, weight.reshape(len(weight), channels, len(places)), places)


def _add_weighted(builder: _Builder, node: Node, source: str, weight: Floats, places: Sequence[Pair]) -> None:
    operation: Any = node.operation
    stride: Pair = getattr(operation, "stride", (1, 1))
    phases: Sequence[Pair] = [(0, 0)]
    if stride != (1, 1):
        source, phases = _part(builder, node.inputs[0], stride)
    used = _used(weight)
    summed, addend = builder.absorb_sum(node.name)
    last, limits = builder.absorb_clip(summed)
    step = Weighted(
        name=node.name,
        source=source,
        target=last,
        weight=np.ascontiguousarray(weight[:, :, used], dtype=np.float32),
        bias=operation.bias.detach().numpy().astype(np.float32),
        reads=[_read(places[index], stride, phases) for index in used],
        phases=len(phases),
        groups=getattr(operation, "groups", 1),
        addend=addend,
        limits=limits,
    )
    builder.put(step, node.shape, (node.name, summed, last))


def _used(weight: Floats) -> list[int]:
    """Return which places of a window have a weight; one of them where none has."""
    return [int(index) for index in np.flatnonzero(weight.any(axis=(0, 1)))] or [0]


def _places(operation: Convolution) -> list[Pair]:
    """Return the rows and columns that a window reads, from the first cell of its stride."""
    rows, columns = operation.weight.shape[2:]
    (above, _, left, _), (down, across) = operation.margins, operation.dilation
    return [(row * down - above, column * across - left) for row in range(rows) for column in range(columns)]


def _read(place: Pair, stride: Pair, phases: Sequence[Pair]) -> Read:
    return Read(phases.index(_phase(place, stride)), place[0] // stride[0], place[1] // stride[1])


def _phase(place: Pair, stride: Pair) -> Pair:
    return place[0] % stride[0], place[1] % stride[1]


def _part(builder: _Builder, name: str, stride: Pair) -> tuple[str, Sequence[Pair]]:
    """Return the map of the phases of a node's values that readers of this stride need, and the phases."""
    source = builder.map_of(name)
    target = f"{source}, every {stride[0]} and {stride[1]}"
    if target in builder.parted:
        return target, builder.parted[target]
    readers = [node.operation for node in builder.users[name] if isinstance(node.operation, Convolution)]
    read = [
        _phase(_places(reader)[index], stride)
        for reader in readers
        if reader.stride == stride
        for index in _used(reader.weight.detach().flatten(2).numpy())
    ]
    phases = sorted(set(read))
    channels, rows, columns = builder.maps[source]
    for index, (row, column) in enumerate(phases):
        size = _count(rows - row, stride[0]), _count(columns - column, stride[1])
        step = Copy(
            name=target,
            source=source,
            target=target,
            size=size,
            start=(row, column),
            step=stride,
            first=index,
            every=len(phases),
        )
        builder.put(step, (channels * len(phases), _count(rows, stride[0]), _count(columns, stride[1])))
    builder.parted[target] = phases
    return target, phases


def _count(cells: int, step: int) -> int:
    return max(-(-cells // step), 0)


def _add_affine(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    last, limits = builder.absorb_clip(node.name)
    step = Scaled(
        name=node.name,
        source=builder.map_of(node.inputs[0]),
        target=last,
        scale=operation.scale.detach().numpy().astype(np.float32),
        shift=operation.shift.detach().numpy().astype(np.float32),
        limits=limits,
    )
    builder.put(step, node.shape, (node.name, last))


def _add_clip(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    source = builder.map_of(node.inputs[0])
    limits = (operation.low, operation.high)
    builder.put(Scaled(name=node.name, source=source, target=node.name, limits=limits), node.shape)


def _add_pool(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    step = Pooled(
        name=node.name,
        source=builder.map_of(node.inputs[0]),
        target=node.name,
        kind=operation.kind,
        window=operation.window,
        stride=operation.stride,
        above=operation.margins[0],
        left=operation.margins[2],
        counts_margins=operation.counts_margins,
    )
    builder.put(step, node.shape)


def _add_sum(builder: _Builder, node: Node) -> None:
    last, limits = builder.absorb_clip(node.name)
    maps = [builder.map_of(name) for name in node.inputs]
    builder.put(Summed(name=node.name, sources=maps, target=last, limits=limits), node.shape, (node.name, last))


def _add_concatenation(builder: _Builder, node: Node) -> None:
    first = 0
    for name in node.inputs:
        source = builder.map_of(name)
        channels, *size = builder.maps[source]
        step = Copy(name=node.name, source=source, target=node.name, size=(size[0], size[1]), first=first)
        builder.put(step, node.shape)
        first += channels


def _add_thin(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    source = builder.map_of(node.inputs[0])
    size = node.shape[1], node.shape[2]
    builder.put(Copy(name=node.name, source=source, target=node.name, size=size, step=operation.step), node.shape)


def _add_pad(builder: _Builder, node: Node) -> None:
    operation: Any = node.operation
    source = builder.map_of(node.inputs[0])
    channels, *size = builder.maps[source]
    before, after = operation.channels
    for first, count in ((0, before), (before + channels, after)):
        if count:
            builder.put(Clear(name=node.name, target=node.name, first=first, count=count), node.shape)
    step = Copy(
        name=node.name,
        source=source,
        target=node.name,
        size=(size[0], size[1]),
        place=(operation.margins[0], operation.margins[2]),
        first=before,
    )
    builder.put(step, node.shape)


def _add_flatten(builder: _Builder, node: Node) -> None:
    source = builder.map_of(node.inputs[0])
    if builder.maps[source][1:] == (1, 1):
        builder.made_by[node.name] = source
    elif node.name == builder.graph.output:
        builder.map_of(node.name)
    # Otherwise it waits for a reader that cannot do without it.


_ADD: Mapping[type[object], Callable[[_Builder, Node], None]] = {
    Convolution: _add_convolution,
    Linear: _add_linear,
    Affine: _add_affine,
    Clip: _add_clip,
    Pool: _add_pool,
    Add: _add_sum,
    Concatenate: _add_concatenation,
    Thin: _add_thin,
    Pad: _add_pad,
    Flatten: _add_flatten,
}


def _cells(name: str, shape: Shape) -> Cells:
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise refuse(
            name,
            expected="a shape (C, H, W) or (F,) without an empty dimension",
            got=f"shape {tuple(shape)}",
            remedy="reshape inside the network to images or features",
        )
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (shape[0], 1, 1)


def _check(node: Node, shapes: Mapping[str, Shape]) -> None:
    operation: Any = node.operation
    if type(operation) not in _ADD:
        raise refuse(
            node.name,
            expected=f"one of {', '.join(kind.__name__ for kind in _ADD)}",
            got=type(operation).__name__,
            remedy="write the network with these, or export to onnx",
        )
    margins: Margins = getattr(operation, "margins", (0, 0, 0, 0))
    if min(margins) < 0:
        raise refuse(
            node.name,
            expected="margins of 0 or more",
            got=f"margins {tuple(margins)}",
            remedy="crop outside the network, or export to onnx",
        )
    if isinstance(operation, Linear | Flatten | Add | Affine | Clip | Concatenate):
        return
    if len(shapes[node.inputs[0]]) != 3:
        raise refuse(
            node.name,
            expected="an image (C, H, W) as input",
            got=f"shape {tuple(shapes[node.inputs[0]])}",
            remedy="do this before the network is flattened",
        )
