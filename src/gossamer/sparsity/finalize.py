"""From a network in training to a plain one: parametrizations folded, dead weights exactly zero, always a copy."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from gossamer.sparsity.masks import Masks, intersect
from gossamer.sparsity.protocol import Finalised
from gossamer.sparsity.targets import targets


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode with every parametrization folded into a plain parameter."""
    module = copy.deepcopy(model)
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _fold(part)
    return module.eval()


def _fold(part: nn.Module) -> None:
    # `remove_parametrizations` deletes properties from a class that a deep copy shares with its original, which
    # would break the model in training; so the copy is given its plain class back instead.
    names = list(part.parametrizations.keys())  # type: ignore[union-attr,operator]
    values = {str(name): getattr(part, str(name)).detach().clone() for name in names}
    part.__class__ = type(part).__mro__[1]
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value))


def nonzero_masks(model: nn.Module) -> Masks:
    """Return what is counted when density is claimed: the weights that are not zero."""
    with torch.no_grad():
        return Masks({target.name: target.weight != 0 for target in targets(model)})


def finalise(model: nn.Module, masks: Masks | None = None) -> Finalised:
    """Return the plain form of a model whose weights outside `masks` are set to zero.

    The masks of the result are counted from the tensors that ship, so a kept weight that is exactly zero does
    not count as kept.
    """
    module = plain_copy(model)
    shipped = nonzero_masks(module)
    if masks is not None:
        shipped = intersect(shipped, Masks({name: mask.to(shipped[name].device) for name, mask in masks.items()}))
    with torch.no_grad():
        for target in targets(module):
            # A fresh zero also turns the -0.0 that sign times zero leaves into 0.0.
            target.parameter.copy_(torch.where(shipped[target.name], target.parameter, 0.0))
    return Finalised(module=module, twin=module, masks=shipped, dense_weights=shipped.total, kind="same-keys")
