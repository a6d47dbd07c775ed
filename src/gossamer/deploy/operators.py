"""What does each traced operator say in a graph's few operations? One short function a family, found by full name."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gossamer.deploy.building import BATCH, Call, View, affine, float32
from gossamer.deploy.graph import (
    Add,
    Clip,
    Concatenate,
    Convolution,
    Linear,
    Margins,
    Operation,
    Pad,
    Pair,
    Pool,
    Thin,
)

Translation: TypeAlias = Callable[[Call], View | tuple[View, None]]
"""A tuple where only the first of several results can be read."""
INFINITY = math.inf


def convolution(call: Call) -> View:
    """conv2d with its margins as numbers, "same" or "valid"."""
    x, weight = call.map(call.view("input")), call.constant("weight")
    dilation, kernel = _pair(call["dilation"]), _pair(weight.shape[2:])
    made = Convolution(
        weight=float32(weight),
        bias=_bias(call, len(weight)),
        stride=_pair(call["stride"]),
        margins=_conv_margins(call["padding"], kernel, dilation),
        dilation=dilation,
        groups=int(call["groups"]),
    )
    return call.add(made, [x], call.shape)


def batch_norm(call: Call) -> View:
    """scale = gamma / sqrt(var + eps), shift = beta - mean * scale, where running statistics exist."""
    if call.arguments.get("training") or call["running_mean"] is None:
        raise call.refusal(
            "a batch norm with running statistics",
            got="one that takes its statistics from the batch, where images meet",
            remedy="train it with track_running_stats=True, or drop it",
        )
    scale = (call.constant("running_var") + call["eps"]).rsqrt()
    if call["weight"] is not None:
        scale = scale * call.constant("weight")
    shift = -call.constant("running_mean") * scale
    if call["bias"] is not None:
        shift = shift + call.constant("bias")
    return _affine(call, call.view("input"), scale, shift)


def batch_norm_results(call: Call) -> tuple[View, None]:
    """The same, as torch writes it after untangling writes in place."""
    return batch_norm(call), None


def linear(call: Call) -> View:
    """x @ weight.T + bias of features."""
    return _linear(call, call.view("input"), call.constant("weight"), _bias(call, len(call.constant("weight"))))


def matmul(call: Call) -> View:
    """Features times a constant matrix (in, out)."""
    x, weight = call.view("self"), _matrix(call, call.constant("other" if "other" in call.arguments else "mat2"))
    return _linear(call, x, weight, torch.zeros(len(weight)))


def addmm(call: Call) -> View:
    """beta * self + alpha * mat1 @ mat2, with constant self and mat2."""
    weight = _matrix(call, call.constant("mat2")) * call["alpha"]
    bias = (call.constant("self") * call["beta"]).expand(BATCH, len(weight))
    if not torch.equal(bias[0], bias[1]):
        raise call.refusal("one bias for all images", got="one an image", remedy="use torch.nn.Linear")
    return _linear(call, call.view("mat1"), weight, bias[0])


def clip(low: str | float, high: str | float) -> Translation:
    """Return the translation of a clip; its bounds are numbers or the names of arguments, None meaning none."""

    def translation(call: Call) -> View:
        ends = [call[end] if isinstance(end, str) else end for end in (low, high)]
        least = -INFINITY if ends[0] is None else float(ends[0])
        most = INFINITY if ends[1] is None else float(ends[1])
        view = call.view("self")
        step = call.add(Clip(low=min(least, most), high=most), [view.name], call.builder.shapes[view.name])
        return View(step.name, view.shape)

    return translation


def add(call: Call) -> View:
    """self + alpha * other: two maps, or a map and a constant per channel."""
    return _sum(call, 1.0, float(call.arguments.get("alpha", 1)))


def subtract(call: Call) -> View:
    """self - alpha * other."""
    return _sum(call, 1.0, -float(call.arguments.get("alpha", 1)))


def subtract_from(call: Call) -> View:
    """other - alpha * self."""
    return _sum(call, -float(call.arguments.get("alpha", 1)), 1.0)


def multiply(call: Call) -> View:
    """A map times a constant per channel, either way round."""
    name, other = ("self", "other") if isinstance(call["self"], View) else ("other", "self")
    return _scale(call, call.view(name), call.constant(other))


def divide(call: Call) -> View:
    """A map by a constant per channel."""
    if call.arguments.get("rounding_mode") is not None:
        raise call.refusal("a plain division", got="one that rounds", remedy="divide without rounding_mode")
    return _scale(call, call.view("self"), call.constant("other").reciprocal())


def negate(call: Call) -> View:
    """-self."""
    return _scale(call, call.view("self"), torch.tensor(-1.0, dtype=torch.float64))


def concatenate(call: Call) -> View:
    """Maps or features one behind the other along the first dimension after the batch; zeros at the ends are a Pad."""
    parts: Sequence[Any] = call["tensors"]
    if call["dim"] % (len(call.shape) + 1) != 1:
        raise call.refusal("channels or features to be joined", got=f"dimension {call['dim']}", remedy="join dim=1")
    zeros = [isinstance(part, Tensor) and not bool(part.any()) for part in parts]
    first = zeros.index(False)
    last = len(zeros) - zeros[::-1].index(False)
    inside = parts[first:last]
    if not all(isinstance(part, View) for part in inside):
        raise call.refusal(
            "maps, and zeros before or behind them", got="another constant", remedy="append zeros, or add a constant"
        )
    names = [call.whole(part) for part in inside]
    shape = (sum(part.shape[0] for part in inside), *inside[0].shape[1:])
    joined = call.add(Concatenate(), names, shape) if len(names) > 1 else View(names[0], shape)
    if len(inside) == len(parts):
        return joined
    around = (sum(part.shape[1] for part in parts[:first]), sum(part.shape[1] for part in parts[last:]))
    return call.add(Pad(channels=around), [call.map(joined)], call.shape, suffix="_zeros")


def max_pool(call: Call) -> View:
    """max_pool2d, dense windows."""
    if _pair(call["dilation"]) != (1, 1):
        raise call.refusal("dilation 1", got=str(call["dilation"]), remedy="use a pooling without dilation")
    x, window, stride = call.map(call.view("self")), _pair(call["kernel_size"]), _stride(call)
    margins = _pool_margins(call, window, stride, _pair(call["padding"]))
    return call.add(Pool(kind="max", window=window, stride=stride, margins=margins), [x], call.shape)


def max_pool_with_indices(call: Call) -> tuple[View, None]:
    """max_pool2d of which only the values can be read."""
    return max_pool(call), None


def mean_pool(call: Call) -> View:
    """avg_pool2d: padding counts where asked for, what ceil_mode adds beyond it never does."""
    if call["divisor_override"] is not None:
        raise call.refusal("no divisor_override", got=str(call["divisor_override"]), remedy="scale the result instead")
    x, window, stride = call.map(call.view("self")), _pair(call["kernel_size"]), _stride(call)
    rows, columns = _pair(call["padding"])
    margins = _pool_margins(call, window, stride, (rows, columns))
    beyond = (max(margins[1] - rows, 0), max(margins[3] - columns, 0))
    counts = bool(call["count_include_pad"])
    if counts and any(beyond) and (rows or columns):
        channels, height, width = call.builder.shapes[x]
        around = (rows, rows, columns, columns)
        padded = (channels, height + 2 * rows, width + 2 * columns)
        x = call.add(Pad(margins=around), [x], padded, suffix="_padding").name
        margins = (0, beyond[0], 0, beyond[1])
    pool = Pool(
        kind="mean",
        window=window,
        stride=stride,
        margins=margins,
        counts_margins=not any(margins) or (counts and not any(beyond)),
    )
    return call.add(pool, [x], call.shape)


def adaptive_mean_pool(call: Call) -> View:
    """adaptive_avg_pool2d whose windows are equal, or that repeats a single pixel."""
    return _adaptive(call, "mean")


def adaptive_max_pool(call: Call) -> tuple[View, None]:
    """adaptive_max_pool2d whose windows are equal, or that repeats a single pixel; only its values can be read."""
    return _adaptive(call, "max"), None


def mean(call: Call) -> View:
    """The mean over rows, columns or both."""
    return _reduce(call, "mean")


def largest(call: Call) -> View:
    """The largest value over rows, columns or both."""
    return _reduce(call, "max")


def reshape(call: Call) -> View:
    """Another shape of the same elements in the same order, image by image."""
    name = "self" if "self" in call.arguments else "input"
    return View(call.view(name).name, call.shape)


def pad(call: Call) -> View:
    """Zeros around rows, columns and channels."""
    mode, value = call.arguments.get("mode", "constant"), call["value"]
    sides = [int(side) for side in call["pad"]]
    if mode != "constant" or value or any(side < 0 for side in sides) or any(sides[6:]):
        raise call.refusal(
            "zeros around rows, columns or channels",
            got=f"mode {mode}, value {value}, sides {sides}",
            remedy="pad with zeros and cut nothing off",
        )
    left, right, above, below, before, behind = (*sides, *[0] * 6)[:6]
    operation = Pad(channels=(before, behind), margins=(above, below, left, right))
    return call.add(operation, [call.map(call.view("self"))], call.shape)


def thin(call: Call) -> View:
    """x[:, :, ::step] or x[:, :, :, ::step]."""
    view, dimension, step = call.view("self"), call["dim"], int(call["step"])
    if call.shape == view.shape and step == 1:
        return view
    dimension %= len(view.shape) + 1
    size = view.shape[dimension - 1] if dimension else 0
    if dimension < 2 or call["start"] not in (None, 0) or call.shape[dimension - 1] != -(-size // step):
        raise call.refusal(
            "every so many rows or columns from the first on",
            got=f"dimension {dimension} from {call['start']} to {call['end']} by {step}",
            remedy="slice as x[:, :, ::2, ::2], and split channels by separate convolutions",
        )
    steps = (step, 1) if dimension == 2 else (1, step)
    return call.add(Thin(step=steps), [call.map(view)], call.shape)


def unchanged(call: Call) -> View:
    """What gives its input back in eval mode."""
    if call.arguments.get("train"):
        raise call.refusal("no dropout in eval mode", got="training=True", remedy="pass training=self.training")
    name = "self" if "self" in call.arguments else "input"
    return call.view(name)


def _linear(call: Call, x: View, weight: Tensor, bias: Tensor) -> View:
    features = call.features(x)
    operation = Linear(weight=float32(weight), bias=float32(bias))
    return call.add(operation, [features], (len(weight),))


def _matrix(call: Call, value: Tensor) -> Tensor:
    if value.ndim == 2:
        return value.T
    raise call.refusal("a matrix (in, out)", got=f"shape {tuple(value.shape)}", remedy="use torch.nn.Linear")


def _bias(call: Call, outputs: int) -> Tensor:
    return torch.zeros(outputs) if call["bias"] is None else float32(call.constant("bias"))


def _sum(call: Call, first: float, second: float) -> View:
    left, right = call["self"], call["other"]
    if isinstance(left, View) and isinstance(right, View):
        return _add_maps(call, left, right, (first, second))
    if isinstance(left, View):
        return _shift(call, left, first, call.constant("other") * second)
    return _shift(call, call.view("other"), second, call.constant("self") * first)


def _add_maps(call: Call, left: View, right: View, factors: tuple[float, float]) -> View:
    if left.shape != right.shape:
        raise call.refusal(
            "two maps of one shape",
            got=f"(N, {', '.join(map(str, left.shape))}) and (N, {', '.join(map(str, right.shape))})",
            remedy="bring them to one shape before the sum",
        )
    terms: list[str] = []
    for view, factor in zip((left, right), factors, strict=True):
        one = torch.ones(view.shape[0])
        scaled = view if factor == 1 else _affine(call, view, factor * one, 0 * one, suffix="_scaled")
        terms.append(call.whole(scaled))
    return call.add(Add(), terms, left.shape)


def _scale(call: Call, view: View, factor: Tensor) -> View:
    scale, of_all = _per_channel(call, view, factor)
    return _affine(call, view, scale, torch.zeros_like(scale), of_all=of_all)


def _shift(call: Call, view: View, factor: float, constant: Tensor) -> View:
    shift, of_all = _per_channel(call, view, constant)
    return _affine(call, view, torch.full_like(shift, factor), shift, of_all=of_all)


def _per_channel(call: Call, view: View, constant: Tensor) -> tuple[Tensor, bool]:
    """Return a broadcast constant as one number a channel, and whether they are all one number."""
    if call.shape == view.shape:
        first, second = constant.expand(BATCH, *view.shape).reshape(BATCH, view.shape[0], -1)
        if torch.equal(first, second) and bool((first == first[:, :1]).all()):
            return first[:, 0], bool((first == first[0, 0]).all())
    raise call.refusal(
        "one constant a channel",
        got=f"one of shape {tuple(constant.shape)} for (N, {', '.join(map(str, view.shape))})",
        remedy="use constants of shape (C, 1, 1) for maps and (F,) for features",
    )


def _affine(call: Call, view: View, scale: Tensor, shift: Tensor, *, of_all: bool = False, suffix: str = "") -> View:
    if of_all:
        made = call.builder.shapes[view.name]
        constants = affine(scale[:1].expand(made[0]), shift[:1].expand(made[0]))
        return View(call.add(constants, [view.name], made, suffix=suffix).name, view.shape)
    return call.add(affine(scale, shift), [call.whole(view)], view.shape, suffix=suffix)


def _adaptive(call: Call, kind: Any) -> View:
    x = call.map(call.view("self"))
    channels, height, width = call.builder.shapes[x]
    rows, columns = call.shape[1:]
    if height % rows == 0 and width % columns == 0:
        window = (height // rows, width // columns)
        return call.add(Pool(kind=kind, window=window, stride=window), [x], call.shape)
    if height == width == 1:
        return call.add(_repeat(channels, rows, columns), [x], call.shape)
    raise call.refusal(
        "equal windows",
        got=f"{rows} x {columns} windows over {height} x {width} pixels",
        remedy="choose an output size that divides the map, or another image size",
    )


def _repeat(channels: int, rows: int, columns: int) -> Operation:
    """A single pixel, seen once from each place around it."""
    return Convolution(
        weight=torch.ones(channels, 1, rows, columns),
        bias=torch.zeros(channels),
        margins=(rows - 1, rows - 1, columns - 1, columns - 1),
        groups=channels,
    )


def _reduce(call: Call, kind: Any) -> View:
    view = call.view("self")
    made = call.builder.shapes[view.name]
    rank = len(view.shape) + 1
    axes = sorted(axis % rank for axis in call["dim"] or range(rank))
    if rank == 3 and len(made) == 3 and view.shape[1] == made[1] * made[2] and axes == [2]:
        view, axes = View(view.name, made), [2, 3]
    if not axes or axes[0] < 2 or len(view.shape) != 3:
        raise call.refusal(
            "rows, columns or both of a map to be reduced",
            got=f"dimensions {axes} of (N, {', '.join(map(str, view.shape))})",
            remedy="reduce over dimensions 2 and 3 alone",
        )
    x = call.map(view)
    channels, height, width = made
    window = (height if 2 in axes else 1, width if 3 in axes else 1)
    shape = (channels, height // window[0], width // window[1])
    step = call.add(Pool(kind=kind, window=window, stride=window), [x], shape)
    return View(step.name, call.shape)


def _pair(values: Any) -> Pair:
    numbers = [int(value) for value in (values if isinstance(values, Sequence) else [values])]
    return numbers[0], numbers[-1]


def _stride(call: Call) -> Pair:
    return _pair(call["stride"] or call["kernel_size"])


def _conv_margins(padding: Any, kernel: Pair, dilation: Pair) -> Margins:
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        rows, columns = (step * (size - 1) for step, size in zip(dilation, kernel, strict=True))
        return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2
    rows, columns = _pair(padding)
    return rows, rows, columns, columns


def _pool_margins(call: Call, window: Pair, stride: Pair, padding: Pair) -> Margins:
    """What the windows reach beyond the map: no more than is read, so that ceil_mode needs no field of its own."""
    size, made = call.view("self").shape[-2:], call.shape[-2:]
    after = [max(0, (made[axis] - 1) * stride[axis] + window[axis] - size[axis] - padding[axis]) for axis in range(2)]
    return padding[0], after[0], padding[1], after[1]


_RELU = clip(0.0, INFINITY)
_CLAMP = clip("min", "max")
_HARDTANH = clip("min_val", "max_val")

TRANSLATIONS: Mapping[str, Translation] = {
    "aten.conv2d.default": convolution,
    "aten.conv2d.padding": convolution,
    "aten.batch_norm.default": batch_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm_results,
    "aten.linear.default": linear,
    "aten.matmul.default": matmul,
    "aten.mm.default": matmul,
    "aten.addmm.default": addmm,
    "aten.relu.default": _RELU,
    "aten.relu6.default": clip(0.0, 6.0),
    "aten.hardtanh.default": _HARDTANH,
    "aten.clamp.default": _CLAMP,
    "aten.clip.default": _CLAMP,
    "aten.clamp_min.default": clip("min", INFINITY),
    "aten.clamp_max.default": clip(-INFINITY, "max"),
    "aten.add.Tensor": add,
    "aten.add.Scalar": add,
    "aten.sub.Tensor": subtract,
    "aten.sub.Scalar": subtract,
    "aten.rsub.Tensor": subtract_from,
    "aten.rsub.Scalar": subtract_from,
    "aten.mul.Tensor": multiply,
    "aten.mul.Scalar": multiply,
    "aten.div.Tensor": divide,
    "aten.div.Scalar": divide,
    "aten.div.Tensor_mode": divide,
    "aten.neg.default": negate,
    "aten.cat.default": concatenate,
    "aten.max_pool2d.default": max_pool,
    "aten.max_pool2d_with_indices.default": max_pool_with_indices,
    "aten.avg_pool2d.default": mean_pool,
    "aten.adaptive_avg_pool2d.default": adaptive_mean_pool,
    "aten.adaptive_max_pool2d.default": adaptive_max_pool,
    "aten.mean.dim": mean,
    "aten.amax.default": largest,
    "aten.flatten.using_ints": reshape,
    "aten.view.default": reshape,
    "aten._unsafe_view.default": reshape,
    "aten.reshape.default": reshape,
    "aten.squeeze.default": reshape,
    "aten.squeeze.dim": reshape,
    "aten.squeeze.dims": reshape,
    "aten.unsqueeze.default": reshape,
    "aten.pad.default": pad,
    "aten.constant_pad_nd.default": pad,
    "aten.slice.Tensor": thin,
    "aten.dropout.default": unchanged,
    "aten.feature_dropout.default": unchanged,
    "aten.alpha_dropout.default": unchanged,
    "aten.feature_alpha_dropout.default": unchanged,
    "aten.contiguous.default": unchanged,
    "aten.clone.default": unchanged,
    "aten.alias.default": unchanged,
    "aten.detach.default": unchanged,
    "aten.lift_fresh_copy.default": unchanged,
    "aten.to.dtype": unchanged,
    "aten.to.device": unchanged,
    "aten.to.dtype_layout": unchanged,
    "aten.to.other": unchanged,
    "aten._to_copy.default": unchanged,
}
