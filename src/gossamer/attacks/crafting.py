"""In which mode does a network stand while it is attacked? A context that sets it and puts everything back."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from gossamer.errors import ConfigError

BatchNormMode: TypeAlias = Literal["eval", "batch", "train"]


@contextmanager
def crafting(model: nn.Module, batch_norm: BatchNormMode) -> Generator[None]:
    """Hold the model ready for attack; afterwards each module's mode and each `requires_grad` is as before.

    eval: running statistics are used (TRADES and MART as published). batch: the model trains, so batch
    statistics are used, but every buffer is put back to the bit. train: as batch, and the buffers keep what
    the attack made of them (Madry et al.; Wong et al.). Inside, no parameter requires a gradient. Raises
    ConfigError for another mode.
    """
    if batch_norm not in get_args(BatchNormMode):
        raise ConfigError(
            "attack_bn",
            expected=f"one of {', '.join(get_args(BatchNormMode))}",
            got=repr(batch_norm),
            remedy="write eval unless the source says otherwise",
        )
    with ExitStack() as restoring:
        restoring.callback(_restore_modes, {module: module.training for module in model.modules()})
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        restoring.callback(_set_requires_grad, trained, True)
        if batch_norm == "batch":
            restoring.enter_context(kept_buffers(model))
        model.train(batch_norm != "eval")
        _set_requires_grad(trained, False)
        yield


@contextmanager
def kept_buffers(model: nn.Module) -> Generator[None]:
    """Put every buffer back to the bit at the end: forward passes inside leave no trace in running statistics."""
    before = _snapshot_buffers(model)
    try:
        yield
    finally:
        _restore_buffers(before)


def _restore_modes(modes: dict[nn.Module, bool]) -> None:
    for module, training in modes.items():
        module.training = training


def _set_requires_grad(parameters: list[nn.Parameter], value: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(value)


_Snapshot: TypeAlias = list[tuple[nn.Module, str, torch.Tensor, torch.Tensor]]


def _snapshot_buffers(model: nn.Module) -> _Snapshot:
    return [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]


@torch.no_grad()
def _restore_buffers(snapshot: _Snapshot) -> None:
    for module, name, buffer, before in snapshot:
        buffer.copy_(before)
        setattr(module, name, buffer)
