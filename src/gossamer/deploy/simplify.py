"""What can a graph do without? Folds, steps that do nothing, and channels that nothing needs, until none is left."""

from dataclasses import replace
from typing import Any

import torch

from gossamer.deploy.channels import constant_logits, constants_out_of_sums, remove_channels
from gossamer.deploy.graph import Graph, Node, constants
from gossamer.deploy.rewriting import RULES, rewrite
from gossamer.errors import ConfigError


def merge_neighbours(graph: Graph) -> Graph:
    """Return the graph after all of `rewriting.RULES`."""
    return rewrite(graph, RULES)


PASSES = (
    merge_neighbours,
    constants_out_of_sums,
    constant_logits,
    remove_channels,
)


def simplify(graph: Graph) -> Graph:
    """Return a smaller graph of the same logits: exact in float64, constants rounded once to float32 at the end.

    In this order, again and again until nothing changes: neighbours become one and idle steps go (`rewriting.RULES`);
    summands that are constant become shifts; a network whose logits are constant becomes a mean, a Flatten and a
    Linear of zero weights with these logits as bias; channels go that nothing needs. No map is left without a channel.
    Raises ConfigError where a folded constant does not fit into float32.
    """
    graph = _cast(graph, torch.float64)
    before = None
    while graph is not before:
        before = graph
        for change in PASSES:
            graph = change(graph)
    rounded = _cast(graph, torch.float32)
    for node in rounded.nodes:
        _check(node)
    return rounded


def _cast(graph: Graph, dtype: torch.dtype) -> Graph:
    return replace(graph, nodes=tuple(replace(node, operation=_operation(node, dtype)) for node in graph.nodes))


def _operation(node: Node, dtype: torch.dtype) -> Any:
    cast = {name: value.to(dtype).contiguous() for name, value in constants(node.operation).items()}
    return replace(node.operation, **cast) if cast else node.operation


def _check(node: Node) -> None:
    for name, value in constants(node.operation).items():
        if not bool(torch.isfinite(value).all()):
            raise ConfigError(
                f"export: {name} of {node.name}",
                expected="folded constants within float32",
                got=f"values up to {float(value.abs().max()):.3g}",
                remedy="look for a batch norm whose running variance is nearly zero",
            )
