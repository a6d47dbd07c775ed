"""What does the network consist of? Weights kept, work kept, and how the weights are spread, layer by layer."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.evaluation.subject import at_rest, count_weights, of_parent
from gossamer.models.counting import blocks, multiply_adds
from gossamer.runs.results import Histogram, Layer, Network, Totals
from gossamer.sparsity.targets import targets

BINS = 101


def describe_network(
    model: nn.Module, image_shape: tuple[int, int, int], *, parent: nn.Module | None = None
) -> Network:
    """Return the weights and multiply-adds of every convolution and linear layer; image_shape: (C, H, W).

    Kept multiply-adds are those of nonzero weights: within a layer every weight is used equally often. A layer that
    the forward pass never calls has none. parent: the dense network that totals and work ratio refer to, where the
    model's own kernels are others. The model stays as it is.

    Raises ConfigError where the model has no convolution or linear layer.
    """
    with at_rest(model), torch.no_grad():
        kernels = {target.name: target.weight.detach().cpu() for target in targets(model)}
        work = multiply_adds(model, image_shape)
    block_of = blocks(kernels)
    layers = tuple(_layer(name, block_of[name], kernel, work.get(name, 0)) for name, kernel in kernels.items())
    totals = _totals(layers) if parent is None else _totals_of(layers, parent, image_shape)
    return Network(
        layers=layers,
        totals=totals,
        work_ratio=totals.multiply_adds / totals.kept_multiply_adds if totals.kept_multiply_adds else None,
        histogram=histogram(torch.cat([kernel.flatten() for kernel in kernels.values()])),
    )


def histogram(weights: Tensor, bins: int = BINS) -> Histogram:
    """Return the nonzero weights counted in equal bins from -m to m, m the largest magnitude; zeros apart.

    Raises ConfigError where a weight is not finite.
    """
    values = weights.detach().flatten().double().cpu()
    if not bool(values.isfinite().all()):
        raise ConfigError(
            "weights", expected="finite numbers", got="NaN or infinity", remedy="train again: the training diverged"
        )
    nonzero = values[values != 0].numpy()
    largest = float(np.abs(nonzero).max()) if nonzero.size else 1.0
    counts, edges = np.histogram(nonzero, bins=bins, range=(-largest, largest))
    return Histogram(edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), zeros=values.numel() - nonzero.size)


def _layer(name: str, block: str, kernel: Tensor, work: int) -> Layer:
    weights, nonzero = kernel.numel(), int(kernel.count_nonzero())
    return Layer(
        name=name,
        block=block,
        shape=tuple(kernel.shape),
        weights=weights,
        nonzero=nonzero,
        density=nonzero / weights,
        multiply_adds=work,
        kept_multiply_adds=work * nonzero // weights,
        histogram=histogram(kernel),
        kernels=_kept_by_kernel(kernel),
    )


def _kept_by_kernel(kernel: Tensor) -> tuple[int, ...] | None:
    size = kernel[0, 0].numel() if kernel.dim() > 2 else 1
    if size == 1:
        return None
    kept = kernel.flatten(2).count_nonzero(dim=2).flatten()
    return tuple(torch.bincount(kept, minlength=size + 1).tolist())


def _totals_of(layers: tuple[Layer, ...], parent: nn.Module, image_shape: tuple[int, int, int]) -> Totals:
    own = _totals(layers)
    weights, nonzero = of_parent(own.weights, own.nonzero, count_weights(parent)[0])
    if weights == own.weights:
        return own
    work = sum(multiply_adds(parent, image_shape).values())
    return replace(own, weights=weights, density=nonzero / weights, multiply_adds=work)


def _totals(layers: tuple[Layer, ...]) -> Totals:
    weights, nonzero = sum(layer.weights for layer in layers), sum(layer.nonzero for layer in layers)
    return Totals(
        weights=weights,
        nonzero=nonzero,
        density=nonzero / weights,
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        kept_multiply_adds=sum(layer.kept_multiply_adds for layer in layers),
    )
