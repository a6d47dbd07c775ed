"""How are the weights of networks spread, and are those they keep gathered in few channels and kernels?"""

from collections.abc import Mapping, Sequence
from math import exp, lgamma

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.evaluation.setting import check_models, check_rising
from gossamer.evaluation.subject import at_rest, place_of
from gossamer.runs.environment import environment
from gossamer.runs.protocols import LayerWeights, NetworkWeights, WeightsTable
from gossamer.sparsity.targets import targets

GAMMAS = (1e-5, 1e-4, 1e-3, 1e-2)


def weights(models: Mapping[str, nn.Module], *, gammas: Sequence[float] = GAMMAS) -> WeightsTable:
    """Count and measure the kernels of networks, which should draw no noise; gammas: magnitudes, rising.

    Raises ConfigError for impossible arguments, a network without kernels, and weights that are not finite.
    """
    check_models(models)
    check_rising("gammas", gammas)
    return WeightsTable(
        gammas=tuple(gammas),
        rows=tuple(_network(name, model, gammas) for name, model in models.items()),
        environment=environment(place_of(next(iter(models.values())), None)),
    )


def _network(name: str, model: nn.Module, gammas: Sequence[float]) -> NetworkWeights:
    with at_rest(model), torch.no_grad():
        kernels = {target.name: target.weight.detach().cpu().double() for target in targets(model)}
    return NetworkWeights(
        name=name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=tuple(_layer(name, layer, kernel, gammas) for layer, kernel in kernels.items()),
    )


def _layer(network: str, name: str, kernel: Tensor, gammas: Sequence[float]) -> LayerWeights:
    if not bool(kernel.isfinite().all()):
        raise ConfigError(
            f"{network}, {name}", expected="finite weights", got="NaN or infinity", remedy="train again: it diverged"
        )
    kept, magnitude = kernel != 0, kernel.abs()
    nonzero = int(kept.sum())
    size = kernel[0, 0].numel() if kernel.dim() > 2 else 1
    return LayerWeights(
        name=name,
        weights=kernel.numel(),
        nonzero=nonzero,
        mean=float(kernel.mean()),
        deviation=float(kernel.std(correction=0)),
        magnitude=float(magnitude[kept].mean()) if nonzero else None,
        below=tuple(int((magnitude < gamma).sum()) for gamma in gammas),
        by_output=tuple(kept.flatten(1).sum(dim=1).tolist()),
        by_input=tuple(kept.transpose(0, 1).flatten(1).sum(dim=1).tolist()),
        kernels=_kernels(kept, size) if size > 1 else None,
        at_random=_at_random(kernel.numel(), nonzero, size) if size > 1 else None,
    )


def _kernels(kept: Tensor, size: int) -> tuple[int, ...]:
    counted = kept.flatten(2).sum(dim=2).flatten()
    return tuple(torch.bincount(counted, minlength=size + 1).tolist())


def _at_random(weights: int, nonzero: int, size: int) -> tuple[float, ...]:
    """Return how many kernels keep 0, 1, ... `size` weights on average: of each, a hypergeometric number is kept."""
    found: list[float] = []
    for kept in range(size + 1):
        elsewhere = nonzero - kept
        possible = 0 <= elsewhere <= weights - size
        chance = (
            exp(_ways(size, kept) + _ways(weights - size, elsewhere) - _ways(weights, nonzero)) if possible else 0.0
        )
        found.append(weights // size * chance)
    return tuple(found)


def _ways(of: int, chosen: int) -> float:
    """Return the logarithm of how many ways there are to choose."""
    return lgamma(of + 1) - lgamma(chosen + 1) - lgamma(of - chosen + 1)
