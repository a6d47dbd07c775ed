"""How much work each layer of a network does, and to which block each of its parameters belongs."""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def multiply_adds(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the dense multiply-adds of every convolution and linear layer for one image.

    image_shape: (C, H, W). Keys are dense parameter names such as "layer1.0.conv1.weight", in order of execution;
    a layer called twice counts twice; biases, batch norms and operations called as functions do not count.
    A copy of the model runs once, in eval mode: the model itself stays as it is.
    """
    twin = copy.deepcopy(model).eval().float()
    counts: dict[str, int] = {}
    for name, module in twin.named_modules():
        work = _work(module)
        if work is not None:
            module.register_forward_hook(_recorder(counts, f"{name}.weight" if name else "weight", work))
    parameter = next(twin.parameters(), torch.empty(0))
    with torch.no_grad():
        twin(torch.zeros(1, *image_shape, device=parameter.device))
    return counts


def blocks(names: Iterable[str]) -> dict[str, str]:
    """Return the top-level block of every parameter name: "layer1.0.conv1.weight" belongs to "layer1".

    Where all names share their first parts (a network inside a wrapper), the first part that differs counts.
    """
    parts = {name: name.split(".") for name in names}
    depth = 0
    while len(parts) > 1 and len({tuple(words[: depth + 1]) for words in parts.values()}) == 1:
        depth += 1
    return {name: ".".join(words[: max(1, min(depth + 1, len(words) - 1))]) for name, words in parts.items()}


def _work(module: nn.Module) -> Callable[[Tensor, Tensor], int] | None:
    if isinstance(module, nn.Linear):
        return lambda _, output: output.numel() * module.in_features
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        taps = module.out_channels // module.groups * math.prod(module.kernel_size)
        return lambda image, _: image.numel() * taps
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        taps = module.in_channels // module.groups * math.prod(module.kernel_size)
        return lambda _, output: output.numel() * taps
    return None


def _recorder(
    counts: dict[str, int], name: str, work: Callable[[Tensor, Tensor], int]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        counts[name] = counts.get(name, 0) + work(inputs[0], output)

    return record
