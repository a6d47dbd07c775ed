"""The 3x3 convolution of frozen weights with a quarter of the multiplications, for the input gradients of attacks.

Direct convolutions on CPUs run near the peak of their arithmetic units, so only fewer multiplications make them faster:
`winograd.c` computes F(4x4, 3x3) (Lavin & Gray, CVPR 2016). The gradient at the input of a convolution of stride 1 and
padding 1 is the same convolution with its weights turned and transposed, so one function serves both directions.

What surrounds the convolution is done while its output is still in registers: forward the bias, the residual and the
ReLU; backward the sum with the gradient of a residual connection, and the gradient of the ReLU before the convolution.

Weights are transformed anew in every call: kept, they would be four times the size of the weights for each direction
(300 MB for ResNet-18), and made anew they cost a few per cent of most layers.

Threads are torch's own: work is handed to GOMP_parallel of the OpenMP runtime that libtorch_cpu itself is linked to, so
no second pool of threads competes with torch's. Where that symbol is missing, the calling thread does all the work.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input

from gossamer.kernels.build import load

SOURCE = Path(__file__).with_name("winograd.c")
KERNEL = (3, 3)
# Costs in multiply-adds of the products, measured: a channel of one tile, and a weight of one pair of channels.
TRANSFORM = 600
WEIGHT = 500
LANES = 8


class _Call(ctypes.Structure):
    """`conv_t` of winograd.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "weight", "bias", "add", "gate", "y")),
        *((name, ctypes.c_long) for name in ("images", "height", "width", "inputs", "outputs")),
        *((name, ctypes.c_long) for name in ("step_in", "step_out", "step_tap", "relu")),
    )


@cache
def library(*flags: str) -> ctypes.CDLL:
    """Return the compiled kernel, on torch's threads; flags: further ones. Raises ConfigError where that fails."""
    made = load(SOURCE, flags)
    made.gossamer_winograd_conv.argtypes = (ctypes.POINTER(_Call), ctypes.c_long)
    made.gossamer_winograd_conv.restype = ctypes.c_long
    made.gossamer_winograd_team.argtypes = (ctypes.c_void_p,)
    made.gossamer_winograd_team.restype = None
    made.gossamer_winograd_team(_parallel_of_torch())
    return made


def _parallel_of_torch() -> int | None:
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        found = getattr(ctypes.CDLL(str(path)), "GOMP_parallel", None)
        if found is not None:
            return ctypes.cast(found, ctypes.c_void_p).value
    return None


def pays(images: int, height: int, width: int, inputs: int, outputs: int) -> bool:
    """Return whether the transforms cost less than the multiplications they save, by the counts of both."""
    filled_in, filled_out = -(-inputs // LANES) * LANES, -(-outputs // LANES) * LANES
    tiles = images * -(-height // 4) * -(-width // 4)
    direct = images * height * width * 9 * inputs * filled_out
    per_tile = 36 * inputs * filled_out + TRANSFORM * (filled_in + filled_out)
    return tiles * per_tile + WEIGHT * inputs * outputs < direct


_LIBRARY = torch.library.Library("gossamer", "FRAGMENT")
_LIBRARY.define(
    "winograd_conv3x3(Tensor x, Tensor weight, Tensor? bias, Tensor? add, Tensor? gate, bool relu, bool transposed)"
    " -> Tensor"
)


def _winograd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    gate: Tensor | None,
    relu: bool,
    transposed: bool,
) -> Tensor:
    y = _empty_output(x, weight, bias, add, gate, relu=relu, transposed=transposed)
    if y.numel() == 0:
        return y
    x, weight, add, gate = _last(x), _last(weight), _last(add), _last(gate)
    bias = None if bias is None else bias.contiguous()
    channels = weight.shape[1]
    # Weights lie as (outputs, 3, 3, inputs); turned by half a circle, their taps are read from the last one.
    steps = (9 * channels, 1, -channels) if transposed else (1, 9 * channels, channels)
    start = weight.data_ptr() + (8 * channels * weight.element_size() if transposed else 0)
    images, inputs, height, width = x.shape
    call = _Call(
        x.data_ptr(),
        start,
        *(None if t is None else t.data_ptr() for t in (bias, add, gate)),
        y.data_ptr(),
        images,
        height,
        width,
        inputs,
        y.shape[1],
        *steps,
        relu,
    )
    if library().gossamer_winograd_conv(call, torch.get_num_threads()):
        raise MemoryError("no memory for the tiles of a convolution")
    return y


def _empty_output(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    gate: Tensor | None,
    relu: bool,  # noqa: ARG001
    transposed: bool,
) -> Tensor:
    images, channels, height, width = x.shape
    outputs, inputs = weight.shape[:2]
    if transposed:
        outputs, inputs = inputs, outputs
    shape = (images, outputs, height, width)
    if channels != inputs or weight.shape[2:] != KERNEL or (bias is not None and bias.shape != shape[1:2]):
        raise ValueError(f"weight {tuple(weight.shape)} or bias do not fit images {tuple(x.shape)}")
    if any(other is not None and other.shape != shape for other in (add, gate)):
        raise ValueError(f"add and gate are of the output's shape {shape}")
    if any(other is not None and other.dtype is not torch.float32 for other in (x, weight, bias, add, gate)):
        raise ValueError("tensors are float32")
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _last(x: Any) -> Any:
    return None if x is None else x.contiguous(memory_format=torch.channels_last)


_LIBRARY.impl("winograd_conv3x3", _winograd, "CPU")
torch.library.register_fake("gossamer::winograd_conv3x3", _empty_output, lib=_LIBRARY)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None, *, relu: bool) -> Tensor:
    """Return act(conv(x) + bias + add), by whichever way is cheaper; x: (N, C, H, W), weight: (K, C, 3, 3), float32."""
    images, inputs, height, width = x.shape
    if pays(images, height, width, inputs, weight.shape[0]):
        return torch.ops.gossamer.winograd_conv3x3(x, weight, bias, add, None, relu, False)
    y = conv2d(x, weight, bias, padding=1)
    if add is not None:
        y = y.add_(add)
    return y.relu_() if relu else y


def input_gradient(grad: Tensor, weight: Tensor, add: Tensor | None, gate: Tensor | None) -> Tensor:
    """Return the gradient at x: (N, C, H, W) for grad: (N, K, H, W) at the output, plus `add`, 0 where gate <= 0."""
    images, outputs, height, width = grad.shape
    inputs = weight.shape[1]
    if pays(images, height, width, outputs, inputs):
        return torch.ops.gossamer.winograd_conv3x3(grad, weight, None, add, gate, False, True)
    made = conv2d_input([images, inputs, height, width], weight, grad, padding=1)
    if add is not None:
        made = made.add_(add)
    return made if gate is None else _through_relu(made, gate)


def _through_relu(grad: Tensor, y: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad, y, 0)


class Convolution(torch.autograd.Function):
    """act(conv(x) + bias + add) with a graph to x and `add` alone; weight and bias are frozen.

    relu: whether act is a ReLU; deferred: its gradient is left to the convolutions that read y; gates: x is such a y;
    shares: x is returned too, for whoever else reads it, so that its gradients are summed in this one's backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        add: Tensor | None,
        relu: bool,
        deferred: bool,
        gates: bool,
        shares: bool,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return y: (N, K, H, W), or where it shares (y, x)."""
        y = convolve(x, weight, bias, add, relu=relu)
        ctx.save_for_backward(weight, x if gates else None, y if relu and not deferred else None)
        return (y, x) if shares else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients at x and `add`."""
        grad, shared = grad_outputs[0], grad_outputs[1] if len(grad_outputs) > 1 else None
        weight, gate, y = ctx.saved_tensors
        if y is not None:
            grad = _through_relu(grad, y)
        at_x = input_gradient(grad, weight, shared, gate) if ctx.needs_input_grad[0] else None
        at_add = grad if ctx.needs_input_grad[3] else None
        return at_x, None, None, at_add, None, None, None, None


class Gate(torch.autograd.Function):
    """y, the output of a ReLU that left its gradient to its readers, for a reader that does not apply it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        """Return y."""
        ctx.save_for_backward(y)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient before the ReLU."""
        (y,) = ctx.saved_tensors
        return _through_relu(grad_outputs[0], y)
