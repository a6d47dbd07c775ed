"""Does a model's gradient say anything? Zero, missing, not finite or saturated, image by image."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.losses import cross_entropy, margin


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """What the input gradients of P images are like, (P,) bool on the CPU each.

    missing: no graph leads from the output to the input, or one without derivatives; zero: the gradient of the margin
    z_y - max z_i is zero everywhere, which no scale of the logits explains; broken: a gradient is NaN or infinite;
    saturated: that of the cross-entropy is zero while the margin's is not, because float32 rounds the probabilities
    of all other classes to 0.
    """

    missing: Tensor
    zero: Tensor
    broken: Tensor
    saturated: Tensor

    @property
    def useless(self) -> Tensor:
        """Where an attack that follows any loss is blind."""
        return self.missing | self.zero | self.broken


def slopes(model: nn.Module, x: Tensor, y: Tensor) -> Slopes:
    """Return what the gradients at x: (P, C, H, W) with labels y: (P,) are like, for a model ready for attack."""
    leaf = x.clone().requires_grad_(True)
    nobody = torch.zeros(len(x), dtype=torch.bool)
    with torch.enable_grad():
        logits = model(leaf)
        by_margin = _gradient(margin(logits.float(), y), leaf)
        by_entropy = _gradient(cross_entropy(logits.float(), y), leaf)
    if by_margin is None or by_entropy is None:
        return Slopes(missing=~nobody, zero=nobody, broken=nobody, saturated=nobody)
    broken = ~(by_margin.isfinite() & by_entropy.isfinite()).flatten(1).all(dim=1)
    flat = ~by_margin.flatten(1).any(dim=1)
    saturated = ~by_entropy.flatten(1).any(dim=1) & ~flat & ~broken
    return Slopes(missing=nobody, zero=flat.cpu(), broken=broken.cpu(), saturated=saturated.cpu())


def _gradient(value: Tensor, leaf: Tensor) -> Tensor | None:
    if not value.requires_grad:
        return None
    try:
        return torch.autograd.grad(value.sum(), leaf, retain_graph=True, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    # Torch says in many words that an operation has no derivative.
    except RuntimeError:
        return None
