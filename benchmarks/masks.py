"""Which weights do benchmarks keep? Densities of every layer, as budgets and studies give them, and random places."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import nn

from gossamer.sparsity.budgets import BudgetSpec, divide
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.targets import Target, targets

Density: TypeAlias = Callable[[Target], float]

# Weights kept in each block, by the beginning of its layers' names.
BCS: Mapping[str, Mapping[float, Mapping[str, int]]] = {
    "resnet18": {
        0.1: {"conv1": 371, "layer1": 27581, "layer2": 73792, "layer3": 194611, "layer4": 808796, "fc": 15892},
        0.01: {"conv1": 240, "layer1": 5367, "layer2": 7402, "layer3": 16949, "layer4": 74600, "fc": 7546},
    },
    "vgg16": {
        0.1: {"block1": 9180, "block2": 36231, "block3": 154074, "block4": 547296, "block5": 692846, "dense": 90657},
        0.01: {"block1": 4722, "block2": 8667, "block3": 17481, "block4": 53307, "block5": 64351, "dense": 4500},
    },
    "wideresnet28": {
        0.1: {"conv1": 71, "layer1": 37762, "layer2": 124866, "layer3": 420827, "fc": 658},
        0.01: {"conv1": 28, "layer1": 7371, "layer2": 14264, "layer3": 36585, "fc": 170},
    },
}
# BCS was published for CIFAR-100 on this network.
BCS_OPTIONS: Mapping[str, Mapping[str, object]] = {"resnet18": {"num_classes": 100}}


def published(model: nn.Module, counts: Mapping[str, int]) -> Density:
    """Return the density of each layer where every block keeps its published count, spread evenly."""
    layers = targets(model)
    sizes = {block: sum(layer.size for layer in layers if layer.name.startswith(f"{block}.")) for block in counts}
    shares = {block: counts[block] / sizes[block] for block in counts}
    return lambda layer: shares[layer.name.partition(".")[0]]


def divided(model: nn.Module, spec: BudgetSpec, density: float) -> Density:
    """Return the density of each layer where a budget divides that of the whole."""
    layers = targets(model)
    counts = divide(make_budget(spec), {layer.name: tuple(layer.parameter.shape) for layer in layers}, density)
    shares = {layer.name: counts[layer.name] / layer.size for layer in layers}
    return lambda layer: shares[layer.name]


def same(density: float) -> Density:
    """Return one density for every layer but depth-wise and other grouped ones, which stay dense."""
    return lambda layer: 1.0 if getattr(layer.module, "groups", 1) > 1 else density


@torch.no_grad()
def thin(model: nn.Module, density: Density, *, alive: bool = False) -> None:
    """Keep round(density * n) random weights of each layer; alive: and one of each output channel, whatever it costs.

    Thin layers that have few inputs, as in MobileNetV2, would else cut the network in two: its logits are constants.
    """
    for layer in targets(model):
        scores = torch.rand(layer.parameter.shape).flatten(1)
        if alive:
            scores[torch.arange(len(scores)), scores.argmax(dim=1)] += 1.0
        least = len(scores) if alive else 0
        order = scores.flatten().argsort(descending=True)
        layer.parameter.view(-1)[order[max(least, round(density(layer) * layer.size)) :]] = 0.0
