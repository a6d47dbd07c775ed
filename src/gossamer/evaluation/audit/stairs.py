"""How does a gradient get past rounding, comparisons and a last softmax? They are given slopes while points are sought.

The forward pass stays the model's own to the bit; only derivatives change (straight-through estimation: Bengio et al.,
2013; backward pass differentiable approximation: Athalye et al., ICML 2018, section 4.1).
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def _itself(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


STAIRS: Mapping[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "heaviside"), _itself),
    "floor_divide": operator.truediv,
    "__floordiv__": operator.truediv,
}
"""Functions of a slope that is zero almost everywhere, by name, and what has the slope in their place."""

COMPARISONS: Mapping[str, int] = {"gt": 1, "ge": 1, "greater": 1, "lt": -1, "le": -1, "less": -1}
"""Comparisons, and whether their truth rises or falls with the first argument."""

CASTS = ("float", "double", "to", "type", "type_as")


class _Slopes(TorchFunctionMode):
    """Counts stairs and comparisons, and lends them slopes where a gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self._truths: dict[int, tuple[Tensor, Tensor]] = {}
        self._squashed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        first = args[0] if args else None
        if not isinstance(output, Tensor) or not isinstance(first, Tensor):
            return output
        name = getattr(func, "__name__", "")
        if name in ("softmax", "_softmax"):
            self._squashed[id(output)] = (output, torch.log_softmax(first, _dimension(args, kwargs)))
        return self._sloped(name, first, args, kwargs, output)

    def unsquashed(self, output: Tensor) -> Tensor | None:
        """Return the log-softmax in the place of an output that a softmax gave, or None where none did."""
        found = self._squashed.get(id(output))
        return None if found is None else found[1]

    def _sloped(self, name: str, first: Tensor, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        if name in STAIRS and first.is_floating_point():
            self.seen += 1
            return _through(STAIRS[name](*args), output)
        if name in COMPARISONS and first.is_floating_point():
            self.seen += 1
            self._truths[id(output)] = (output, COMPARISONS[name] * (first - args[1]))
        if name == "div" and kwargs.get("rounding_mode"):
            self.seen += 1
            return _through(args[0] / args[1], output)
        if name in CASTS and output.is_floating_point() and id(first) in self._truths:
            return _through(self._truths[id(first)][1], output)
        return output


class StraightThrough(nn.Module):
    """A model whose rounding, sign and comparison operations have the slope of the identity.

    Comparisons count where their truth is cast to numbers by `float()` or `to()`. Operations in place, and those
    inside functions with a derivative of their own, stay as they are.
    """

    pure = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's logits (N, K) for x: (N, C, H, W)."""
        with _Slopes():
            return self.model(x)


class Unsquashed(StraightThrough):
    """A model whose softmax is undone: the log-softmax of what went into it, else the logarithm of its output."""

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (N, K) for x: (N, C, H, W)."""
        with _Slopes() as slopes:
            output = self.model(x)
        logs = slopes.unsquashed(output)
        return output.clamp(min=torch.finfo(output.dtype).tiny).log() if logs is None else logs


def count_stairs(model: nn.Module, x: Tensor) -> int:
    """Return how many stairs and comparisons of floating tensors a forward pass on x: (P, C, H, W) calls."""
    with torch.no_grad(), _Slopes() as slopes:
        model(x)
    return slopes.seen


class _Through(torch.autograd.Function):
    """The second tensor's values with the first one's graph."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, output: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - autograd's signature
        return gradients[0], None


def _through(slope: Tensor, output: Tensor) -> Tensor:
    if not slope.requires_grad or slope.shape != output.shape:
        return output
    # Detached: some of these operations have a derivative that raises when it is so much as asked.
    return _Through.apply(slope, output.detach())  # pyright: ignore[reportReturnType]


def _dimension(args: Any, kwargs: Any) -> int:
    given = args[1] if len(args) > 1 else kwargs.get("dim")
    return 1 if given is None else given
