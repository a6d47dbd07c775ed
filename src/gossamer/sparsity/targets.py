"""Which tensors can be pruned: every convolution and linear kernel, first and last included; biases and norms not."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Target:
    """One prunable kernel; name: its key in the dense model's state dict; module: its owner."""

    name: str
    module: nn.Module

    @property
    def parameter(self) -> nn.Parameter:
        """The stored trainable tensor, whether parametrized or not."""
        if parametrize.is_parametrized(self.module, "weight"):
            original = self.module.parametrizations["weight"].original  # type: ignore[union-attr,index]
            assert isinstance(original, nn.Parameter)
            return original
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def weight(self) -> Tensor:
        """The effective weight, as the forward pass sees it."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.parameter.numel()


def targets(model: nn.Module) -> tuple[Target, ...]:
    """Return the prunable kernels of a model in module order, shared modules once.

    Raises ConfigError where there is nothing to prune.
    """
    found = tuple(
        Target(f"{name}.weight" if name else "weight", module)
        for name, module in model.named_modules()
        if isinstance(module, PRUNABLE)
    )
    if not found:
        raise ConfigError(
            "model",
            expected="at least one convolution or linear layer to prune",
            got=type(model).__name__,
            remedy="give a module that holds nn.Conv2d or nn.Linear layers",
        )
    return found


def fan_in(weight: Tensor) -> int:
    """Return the inputs that feed one output of a kernel (C_out, C_in, ...) or (out, in)."""
    return weight[0].numel()


def flat(tensor: Tensor) -> Tensor:
    """Return a one-dimensional view of a dense tensor in storage order, whatever its memory format."""
    return torch.as_strided(tensor, (tensor.numel(),), (1,), tensor.storage_offset())
