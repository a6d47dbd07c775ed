"""What is left of a batch norm that no longer learns? One scale and one shift per channel.

In eval mode y = (x - mean) / sqrt(var + eps) * gamma + beta, which is scale * x + shift with

    scale = gamma / sqrt(var + eps),   shift = beta - mean * scale.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
PARTS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"


def folds(module: nn.Module) -> bool:
    """Tell whether a module is a batch norm with gamma, beta and running statistics.

    One without gamma and beta is its mean and variance: as small as scale and shift.
    """
    return isinstance(module, BATCH_NORMS) and all(getattr(module, part) is not None for part in PARTS)


def fold(norm: nn.Module) -> NDArray[np.float32]:
    """Return scale and shift, (2, C), computed in float64; norm: one that `folds`."""
    gamma, beta, mean, variance = (
        getattr(norm, part).detach().to(device="cpu", dtype=torch.float64).numpy() for part in PARTS
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = gamma / np.sqrt(variance + float(getattr(norm, "eps")))  # noqa: B009
        return np.stack([scale, beta - mean * scale]).astype(np.float32)


def unfold(scale_shift: NDArray[np.float32], eps: float) -> dict[str, Tensor]:
    """Return the tensors of a batch norm of that eps which computes scale * x + shift; scale_shift: (2, C).

    mean 0, variance 1 - eps, gamma the scale and beta the shift; for eps above 1, where that variance would be
    negative, variance 0 and gamma = scale * sqrt(eps).
    """
    scale, shift = torch.from_numpy(scale_shift).clone()
    return {
        "weight": scale * math.sqrt(max(1.0, eps)),
        "bias": shift,
        "running_mean": torch.zeros_like(scale),
        "running_var": torch.full_like(scale, max(0.0, 1.0 - eps)),
        COUNTER: torch.tensor(0),
    }
