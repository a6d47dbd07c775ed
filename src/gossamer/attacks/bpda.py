"""How is a layer attacked that has no useful gradient? Forward as it is, backward through a stand-in."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import crafting
from gossamer.attacks.stepwise import Rows
from gossamer.attacks.wrapping import Wrapper
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.types import Model


@dataclass(frozen=True, kw_only=True)
class BPDA(Wrapper):
    """Any attack with one layer's backward pass approximated (Athalye et al., ICML 2018, section 4.1).

    layer: its name in `model.named_modules()`; it takes one tensor and returns one. backward: a differentiable
    module through which gradients flow in the layer's stead; None for the identity, where shapes are equal. Forward
    values stay the layer's own to the bit, and the hook that does this is gone when the attack returns. For several
    layers put one BPDA on another, and all of them outside of other wrappers.

    Raises ConfigError at the first step where the model is no module, has no such layer, or the stand-in's output
    is of another shape than the layer's.
    """

    layer: str
    backward: nn.Module | None = None

    @property
    def needs_module(self) -> bool:
        """True: the layer is found by name."""
        return True

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows advanced with the layer's backward pass replaced."""
        with _approximated(_find(model, self.layer), self.layer, self.backward):
            return self.inner.advance(model, x, y, rows, draws)


def _find(model: Model, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ConfigError(
            "BPDA",
            expected="an nn.Module, in which a layer can be found by name",
            got=type(model).__name__,
            remedy="put BPDA outside of wrappers that change the model, such as Expectation",
        )
    named = dict(model.named_modules())
    if name not in named:
        raise ConfigError(
            "BPDA layer",
            expected=f"one of {', '.join(filter(None, named))}",
            got=repr(name),
            remedy="write a name out of model.named_modules()",
        )
    return named[name]


@contextmanager
def _approximated(layer: nn.Module, name: str, backward: nn.Module | None) -> Generator[None]:
    def swap(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:  # noqa: ARG001
        if not torch.is_grad_enabled():
            return output
        instead: Tensor = inputs[0] if backward is None else backward(inputs[0])
        if instead.shape != output.shape:
            raise ConfigError(
                f"BPDA layer {name}",
                expected=f"a stand-in that gives {tuple(output.shape)}, as the layer does",
                got=tuple(instead.shape),
                remedy="give a differentiable module of the same shapes as backward",
            )
        return _Swap.apply(instead, output)

    with ExitStack() as restoring:
        if backward is not None:
            restoring.enter_context(crafting(backward, "eval"))
        restoring.callback(layer.register_forward_hook(swap).remove)
        yield


class _Swap(torch.autograd.Function):
    """The second tensor's values with the first tensor's graph."""

    @staticmethod
    def forward(ctx: Any, instead: Tensor, output: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - autograd's signature
        return gradients[0], None
