"""Layers that compute with factors: (B + I) A + C or B (A + I) + C in place of one kernel, as what ships."""

import copy
from collections.abc import Mapping
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gossamer.sparsity.targets import targets

FACTORISED = "factorised"
PARTS = ("a", "b", "c")

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
Kernel: TypeAlias = nn.Linear | Convolution

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def can_be_factorised(module: nn.Module) -> bool:
    """Return whether a layer's kernel is one matrix: linear layers, and convolutions without groups, zero-padded."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and (module.groups, module.padding_mode) == (
        1,
        "zeros",
    )


def factor_shapes(kernel: torch.Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B for a kernel of (C_out, C_in, ...): rank min(C_out, inputs), B with 1x1 taps."""
    rows, columns = kernel[0], kernel[1:].numel()
    rank = min(rows, columns)
    return (rank, *kernel[1:]), (rows, rank, *(1 for _ in kernel[2:]))


def identity_inside(kernel: torch.Size) -> bool:
    """Return whether the identity is added to A, where the rank is that of the inputs, rather than to B."""
    return kernel[1:].numel() <= kernel[0]


def compose(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return the kernel that the factors make, in the shape of c."""
    matrix, left = a.flatten(1), b.flatten(1)
    rest = left if identity_inside(c.shape) else matrix
    return (left @ matrix + rest).reshape(c.shape) + c


class FactorLayer(nn.Module):
    """A linear layer or convolution whose kernel is (B + I) A + C, or B (A + I) + C; made from the plain layer.

    a, b and c are plain layers, c with the bias, so that weights and work are counted on what is stored.
    """

    identity: Tensor

    def __init__(self, plain: Kernel) -> None:
        super().__init__()
        first, second = factor_shapes(plain.weight.shape)
        self.inside = identity_inside(plain.weight.shape)
        self.a = _with_kernel(plain, first)
        self.b = _with_kernel(plain, second, pointwise=True)
        self.c = copy.deepcopy(plain)
        eye = torch.eye(first[0], device=plain.weight.device).reshape(first) if self.inside else torch.empty(0)
        self.register_buffer("identity", eye, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the plain layer would with the composed kernel."""
        hidden = self.a(x)
        if self.inside:
            return self.b(hidden + self._inputs(x)) + self.c(x)
        return self.b(hidden) + hidden + self.c(x)

    def _inputs(self, x: Tensor) -> Tensor:
        """Return the inputs under the kernel at each position, as channels."""
        if isinstance(self.a, nn.Linear):
            return x
        a = self.a
        return _CONVOLVE[self.identity.ndim - 2](x, self.identity, None, a.stride, a.padding, a.dilation)  # pyright: ignore[reportArgumentType]


def _with_kernel(plain: Kernel, shape: tuple[int, ...], *, pointwise: bool = False) -> Kernel:
    """Return a layer like the plain one, without bias, of another kernel; pointwise: 1x1, at every position."""
    where = {"device": plain.weight.device, "dtype": plain.weight.dtype}
    if isinstance(plain, nn.Linear):
        return nn.Linear(shape[1], shape[0], bias=False, **where)
    placed = {} if pointwise else {"stride": plain.stride, "padding": plain.padding, "dilation": plain.dilation}
    return type(plain)(shape[1], shape[0], shape[2:], bias=False, **placed, **where)  # pyright: ignore[reportArgumentType]


def replace_layer(model: nn.Module, path: str) -> FactorLayer:
    """Put a factor layer in the place of a plain one, in place, and return it; path: the layer's dotted name."""
    parent, _, name = path.rpartition(".")
    made = FactorLayer(cast("Kernel", model.get_submodule(path)))
    setattr(model.get_submodule(parent), name, made)
    return made


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the dense network with factor layers wherever their tensors were stored, loaded, in eval mode."""
    for target in targets(model):
        path = target.name.removesuffix("weight").removesuffix(".")
        if f"{path}.a.weight" in tensors:
            replace_layer(model, path)
    model.load_state_dict(dict(tensors))
    return model.eval()
