"""What does one kept weight of a layer cost? Multiply-adds counted, or time measured."""

import statistics
import time
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.sparsity.budgets import LeastWork, WorkUnit
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.targets import targets

REPEATS = 7

Part = TypeVar("Part")


def settled(part: Part, model: nn.Module, horizon: Horizon | None) -> Part:
    """Return a budget, or a dataclass that holds one, with what it needs to know of a network; alone least work does.

    A run measures latencies once, and every phase of it, every process and every resumption divides by those. Raises
    ConfigError where the shape of the images is not known.
    """
    if isinstance(part, LeastWork):
        return part if part.costs else replace(part, costs=_costs(part.by, model, horizon))
    if not is_dataclass(part) or isinstance(part, type):
        return part
    held = {each.name: getattr(part, each.name) for each in fields(part) if each.init}
    known = {name: settled(value, model, horizon) for name, value in held.items()}
    changed = {name: value for name, value in known.items() if value is not held[name]}
    return cast("Part", replace(cast("Any", part), **changed)) if changed else part


def _costs(by: WorkUnit, model: nn.Module, horizon: Horizon | None) -> dict[str, float]:
    shape = None if horizon is None else horizon.image_shape
    if horizon is None or shape is None:
        raise ConfigError(
            "method.budget",
            expected="the shape of the images",
            got="a loop that did not say",
            remedy="attach with Horizon(image_shape=...), train by a recipe, or choose another budget",
        )
    if by == "multiply-adds":
        return costs(model, shape, by)
    return dict(horizon.recall(by, lambda: costs(model, shape, by)))


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
            model.eval()(layers[0].weight.new_zeros(1, *image_shape))
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
        _wait_for(given.device)
        began = time.perf_counter()
        module.forward(given)
        _wait_for(given.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told: an accelerator answers before."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
