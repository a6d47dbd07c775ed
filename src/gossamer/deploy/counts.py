"""How much work is an image? Multiplications, additions and bytes moved, counted from the graph of a network."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from gossamer.deploy.csource.constants import PLACE_BITS, is_dense
from gossamer.deploy.graph import Convolution, Graph, Linear, Node
from gossamer.deploy.simplify import merge_neighbours, simplify
from gossamer.runs import records

FLOAT = 4
PLACE = PLACE_BITS // 8


@dataclass(frozen=True, kw_only=True)
class Work:
    """One image's work. bytes: weights read once, as C files do, and every map written once and read once; float32."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    multiplications: int
    additions: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The work of convolutions and linear layers for one image, places in the padding included.

    dense: with every weight; kept: with those that are not zero; signs: the same with one sign a weight, so that a
    weight costs an addition, and each output one multiplication by the scale. A kept weight is read with its place, of
    2 bytes, but in layers that C files compute densely, where all are read without; of a sign the place is all that is
    read, as the order of places tells it. work_ratio: dense multiplications over kept ones, None where none are kept.
    signs_save: the share of kept operations, multiplications and additions counted as one each, that signs save: at
    most a half, as all multiplications but one an output go and all additions stay. computed: with those that are not
    zero and that the logits need; None where not counted. Zeros that C files multiply in dense layers are in none.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    dense: Work
    kept: Work
    signs: Work
    work_ratio: float | None
    signs_save: float | None
    computed: Work | None = None


def count_network(captured: Graph, parent: Graph | None = None) -> Counts:
    """Return the work of a network for one image, batch norms folded in, and apart what is left to compute of it.

    captured: as it was captured, with every channel. parent: of its dense parent, where the network's own kernels are
    others, such as those of fewer channels.
    """
    found = replace(_folded(captured), computed=count(simplify(captured)).kept)
    if parent is None:
        return found
    dense, kept = _folded(parent).dense, found.kept.multiplications
    return replace(found, dense=dense, work_ratio=dense.multiplications / kept if kept else None)


def count(graph: Graph, *, maps: int | None = None) -> Counts:
    """Return the work of a graph for one image; maps: bytes of its maps, where they are not all written."""
    layers = [node for node in graph.nodes if isinstance(node.operation, Convolution | Linear)]
    outputs = sum(math.prod(node.shape) for node in layers)
    weights = {node.name: _weight(node).numel() for node in layers}
    nonzero = {node.name: int(_weight(node).count_nonzero()) for node in layers}
    maps = _map_bytes(graph) if maps is None else maps
    dense, kept = (sum(_products(node, each[node.name]) for node in layers) for each in (weights, nonzero))
    whole = Work(multiplications=dense, additions=dense, bytes=maps + FLOAT * sum(weights.values()))
    read = sum(_bytes_read(node, weights[node.name], nonzero[node.name]) for node in layers)
    left = Work(multiplications=kept, additions=kept, bytes=maps + read)
    signs = Work(multiplications=outputs, additions=kept, bytes=maps + PLACE * sum(nonzero.values()))
    operations = left.multiplications + left.additions
    saved = operations - signs.multiplications - signs.additions
    return Counts(
        dense=whole,
        kept=left,
        signs=signs,
        work_ratio=dense / kept if kept else None,
        signs_save=saved / operations if operations else None,
    )


def _folded(graph: Graph) -> Counts:
    """Return the work with every weight that was captured, and without the maps of what folds into neighbours."""
    return count(graph, maps=_map_bytes(merge_neighbours(graph)))


def _weight(node: Node) -> Any:
    operation: Any = node.operation
    return operation.weight


def _bytes_read(node: Node, weights: int, kept: int) -> int:
    """Return the bytes of a layer's weights as C files read them: all values, or the kept ones, each with its place."""
    groups: int = getattr(node.operation, "groups", 1)
    dense = is_dense(kept, weights, cells=math.prod(node.shape[1:]), groups=groups)
    return FLOAT * weights if dense else (FLOAT + PLACE) * kept


def _products(node: Node, weights: int) -> int:
    """Return how often so many weights of a layer are multiplied for one image: once at each place of its map."""
    return weights * math.prod(node.shape[1:])


def _map_bytes(graph: Graph) -> int:
    sizes = {name: math.prod(shape) for name, shape in graph.shapes().items()}
    read = sum(sizes[name] for node in graph.nodes for name in node.inputs)
    return FLOAT * (read + sum(sizes[node.name] for node in graph.nodes))
