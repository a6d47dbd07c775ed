"""How does a network become an ONNX file of int8? By onnxruntime's static quantisation, calibrated on given images."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from gossamer.deploy.onnx_file import INPUT, PACKAGES, check_packages, checked, put_texts, write_onnx
from gossamer.deploy.scratch import scratch
from gossamer.deploy.seal import sealed
from gossamer.deploy.tracing import quietly, refusal
from gossamer.errors import ConfigError
from gossamer.runs import atomic

LEAST = 16
"""Images below which the ranges that are measured say nothing."""
BATCH = 32


def write_onnx_int8(
    model: nn.Module | Path, example: Tensor, images: Tensor, path: Path, *, about: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Write a network as an ONNX file whose operators compute in int8 where they can; return what stays in float here.

    model: a network, or an ONNX file that `write_onnx` wrote. images: (M, C, H, W) float32 in [0, 1], training images,
    on which the ranges of activations are measured: int8 with one scale a tensor, weights with one scale an output
    channel, as pairs of QuantizeLinear and DequantizeLinear around each operator. Raises ConfigError where the extra
    `export` is missing, for fewer than 16 images, and as `write_onnx` does.
    """
    check_packages(PACKAGES, "onnx-int8")
    if images.ndim != 4 or len(images) < LEAST or images.shape[1:] != example.shape[1:]:
        raise ConfigError(
            "export to onnx-int8: calibration images",
            expected=f"at least {LEAST} training images of shape {tuple(example.shape[1:])}",
            got=f"shape {tuple(images.shape)}",
            remedy="give images=, a few hundred of the training split",
        )
    with scratch() as folder:
        source = model if isinstance(model, Path) else folder / "float.onnx"
        if not isinstance(model, Path):
            write_onnx(model, example, source)
        made = folder / "int8.onnx"
        _quantise(source, made, images)
        proto = _loaded(made)
        put_texts(proto, about or {})
        data = checked(proto, path.name)
        floats = in_float(_optimised(data, folder / "optimised.onnx"))
    atomic.write_bytes(path, sealed(data))
    return floats


def in_float(proto: Any) -> tuple[str, ...]:
    """Return the operators of a model that take real numbers, but for those that quantise them: ("2 Softmax",).

    proto: as onnxruntime has optimised it, each operator between integers being one operator of integers.
    """
    real = {entry.name for entry in proto.graph.input}
    floats: Counter[str] = Counter()
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":
            real |= set(node.output)
        elif node.op_type != "QuantizeLinear" and node.input and node.input[0] in real:
            real |= set(node.output)
            floats[node.op_type] += 1
    return tuple(f"{count} {kind}" for kind, count in sorted(floats.items()))


def _optimised(data: bytes, path: Path) -> Any:
    import onnxruntime  # noqa: PLC0415  (an extra, needed here alone)

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
    # Its errors share no base but Exception.
    except Exception as error:
        raise refusal(error, "a model that onnxruntime optimises, and room for it in the temporary folder") from error
    return _loaded(path)


def _quantise(source: Path, made: Path, images: Tensor) -> None:
    from onnxruntime import quantization  # noqa: PLC0415  (an extra, needed here alone)

    parts = iter(images.split(BATCH))

    class Reader(quantization.CalibrationDataReader):
        """Hands images to onnxruntime, a few at a time."""

        def get_next(self) -> Any:
            """Return the next batch by the name of the input, None after the last."""
            part = next(parts, None)
            return None if part is None else {INPUT: np.ascontiguousarray(part.float().cpu().numpy())}

    try:
        with quietly():
            quantization.quantize_static(
                str(source),
                str(made),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"ActivationSymmetric": False},
            )
    except Exception as error:
        raise refusal(error, "operators that onnxruntime can quantise") from error


def _loaded(path: Path) -> Any:
    import onnx  # noqa: PLC0415

    return onnx.load(str(path))
