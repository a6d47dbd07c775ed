"""What stands still while scores learn? Every weight and bias; batch norms are left to training, or made plain."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


def freeze_weights(model: nn.Module, *, batch_norms: bool = False) -> None:
    """Let nothing of the model learn but its batch norms; batch_norms: not these either."""
    for module in model.modules():
        if batch_norms or not isinstance(module, _BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False).grad = None


def plain_batch_norms(model: nn.Module) -> None:
    """Fix scale 1 and shift 0 in every batch norm, as one without affine parameters has."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine:
            nn.init.ones_(module.weight).requires_grad_(False)
            nn.init.zeros_(module.bias).requires_grad_(False)
