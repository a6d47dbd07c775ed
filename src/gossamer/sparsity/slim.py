"""How does a network with fewer channels come back from its tensors? Every module takes the shapes that were stored."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gossamer.errors import RunError
from gossamer.sparsity.finalize import finalise
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised

SLIM = "slim"
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def resize(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Give a dense network the channels of the stored tensors, load them strictly, and return it in eval mode.

    Convolutions (grouped ones keep one group a channel), linear layers and batch norms are resized. Raises RunError
    for any other tensor whose shape differs.
    """
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        _resize_module(module, {key: tensors[prefix + key] for key in _own(module) if prefix + key in tensors})
    present = model.state_dict()
    different = [name for name, value in tensors.items() if name in present and present[name].shape != value.shape]
    if different:
        raise RunError(
            f"stored network: {different[0]}",
            expected="a tensor of a convolution, linear layer or batch norm where shapes differ",
            got="another module's",
            remedy="open the run with the network it was trained with",
        )
    model.load_state_dict(dict(tensors))
    return model.eval()


def _own(module: nn.Module) -> list[str]:
    return [name for name, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))]


def _resize_module(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    if not isinstance(module, Convolution | nn.Linear | Norm):
        return
    for name, value in stored.items():
        present = getattr(module, name)
        if present is None or present.shape == value.shape:
            continue
        empty = torch.empty(value.shape, dtype=present.dtype, device=present.device)
        setattr(module, name, nn.Parameter(empty) if isinstance(present, nn.Parameter) else empty)
    _tell_sizes(module)


def _tell_sizes(module: Convolution | nn.Linear | Norm) -> None:
    weight = module.weight
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, Convolution):
        if module.groups > 1:
            module.groups = weight.shape[0] // max(1, module.out_channels // module.groups)
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif module.running_mean is not None:
        module.num_features = module.running_mean.shape[0]


class Slimmed(NoSparsifier):
    """Trains a network whose channels were removed: every weight that is left lives.

    parent: the prunable weights of the dense parent, to which the density refers.
    """

    contract: BudgetContract = "at-most"

    def __init__(self, parent: int) -> None:
        super().__init__()
        self._parent = parent

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain copy of fewer channels than its dense parent."""
        made = finalise(model)
        return Finalised(
            module=made.module,
            twin=made.module,
            masks=made.masks,
            dense_weights=self._parent,
            kind="restructured",
            form=SLIM,
        )
