"""What does one kept weight of a layer cost? Multiply-adds counted, or time measured."""

import statistics
import time
from dataclasses import replace

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.sparsity.budgets import Budget, LeastWork, WorkUnit
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.targets import targets

REPEATS = 7


def settled(budget: Budget, model: nn.Module, horizon: Horizon | None) -> Budget:
    """Return a budget that has what it needs of the network; only the budget of least work needs anything."""
    if not isinstance(budget, LeastWork) or budget.costs:
        return budget
    if horizon is None:
        raise ConfigError(
            "method.budget",
            expected="the shape of the images",
            got="a loop that did not say",
            remedy="give image_shape, or choose another budget",
        )
    return replace(budget, costs=costs(model, horizon.image_shape, budget.by))


def costs(model: nn.Module, image_shape: tuple[int, int, int], by: WorkUnit = "multiply-adds") -> dict[str, float]:
    """Return the cost of one weight of each layer for one image of shape (C, H, W), in module order."""
    layers = targets(model)
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[nn.Module, Tensor] = {}

    def remember(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        inputs[module], outputs[module] = given[0], made

    hooks = [layer.module.register_forward_hook(remember) for layer in layers]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *image_shape, device=layers[0].weight.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if by == "latency":
        return {layer.name: _seconds(layer.module, inputs[layer.module]) / layer.size for layer in layers}
    return {layer.name: float(_positions(layer.module, outputs[layer.module])) for layer in layers}


def _positions(module: nn.Module, output: Tensor) -> int:
    """Return how often each weight of a layer is used for one image."""
    if isinstance(module, nn.Linear):
        return output.numel() // output.shape[-1]
    return int(output[0, 0].numel())


@torch.no_grad()
def _seconds(module: nn.Module, given: Tensor) -> float:
    times: list[float] = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        module.forward(given)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
