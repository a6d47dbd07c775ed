"""Batch norm over the whole batch, where several processes share it out."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from gossamer.training.ranks import Ranks


@contextmanager
def synchronised(model: nn.Module, ranks: Ranks) -> Generator[None]:
    """Let every batch norm of a model that is in training mode take mean and variance over all ranks' images.

    On any device, unlike torch.nn.SyncBatchNorm, which computes on GPUs alone, and without another module in the
    network's place: names, copies and foldings stay as they are. All ranks must make the same forward passes.
    """
    if not ranks.several:
        yield
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = _Synchronised(norm, ranks.world)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Synchronised:
    """One batch norm's forward pass over all ranks."""

    def __init__(self, norm: _BatchNorm, world: int) -> None:
        self._norm = norm
        self._world = world

    def __call__(self, x: Tensor) -> Tensor:
        norm = self._norm
        if not norm.training and norm.running_mean is not None:
            return type(norm).forward(norm, x)
        dims = [dim for dim in range(x.dim()) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(x.dim())]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        # Every rank has as many images.
        count = self._world * x.numel() // x.shape[1]
        mean = _sum(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = _sum(centred.square().sum(dims)) / count
        if norm.training:
            _move_running(norm, mean.detach(), variance.detach(), count)
        y = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            y = y * norm.weight.view(shape) + norm.bias.view(shape)
        return y.to(x.dtype)


@torch.no_grad()
def _move_running(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_((variance * count / (count - 1)).to(norm.running_var), share)


class _Sum(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of the ranks' gradients, since each of them used the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(x: Tensor) -> Tensor:
    return cast("Tensor", _Sum.apply(x))
