"""What weights does a C file compute with? Those of the graph as its values can be stored: its float twin."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gossamer.deploy.csource.constants import Values, coded
from gossamer.deploy.graph import Convolution, Graph, Linear, Node
from gossamer.errors import DataError


def rounded(graph: Graph, values: Values) -> Graph:
    """Return the graph that a C file with such values computes, but for the order of its sums."""
    if values == "float32":
        return graph
    nodes: Sequence[Node] = tuple(_rounded_node(node, values) for node in graph.nodes)
    return replace(graph, nodes=nodes)


def float_layers(graph: Graph, values: Values) -> list[str]:
    """Return the layers that keep float32 weights although signs are asked for, as they hold several magnitudes.

    Raises DataError where all of them do.
    """
    layers = [node for node in graph.nodes if isinstance(node.operation, Convolution | Linear)]
    if values != "signs":
        return []
    floats = [node.name for node in layers if _coding(node) == "floats"]
    if layers and len(floats) == len(layers):
        raise DataError(
            "weights, as signs",
            expected="one magnitude in each output channel of some layer",
            got="several in all of them",
            remedy="leave --values out, or train with binary: true",
        )
    return floats


def _coding(node: Node) -> str:
    operation: Any = node.operation
    return coded(operation.weight.detach().flatten(1).numpy(), "signs", node.name).coding


def _rounded_node(node: Node, values: Values) -> Node:
    operation: Any = node.operation
    if not isinstance(operation, Convolution | Linear):
        return node
    return replace(node, operation=replace(operation, weight=_rounded_weight(operation.weight, values, node.name)))


def _rounded_weight(weight: Tensor, values: Values, name: str) -> Tensor:
    found = coded(weight.detach().flatten(1).numpy(), values, name)
    if found.coding == "floats":
        return weight
    return torch.from_numpy(found.codes * found.scales[:, None]).to(torch.float32).view_as(weight)
