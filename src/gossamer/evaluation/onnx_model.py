"""How is an ONNX file evaluated? As a module without gradients that onnxruntime runs on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.adapters import Array, Foreign, as_logits

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
BYTES = "tensor(uint8)"


class OnnxModel(Foreign):
    """An ONNX file with one input of images (N, C, H, W) and the logits (N, K) among its outputs.

    output: the name of the logits where there are several outputs. A fixed batch is filled up with repeated images. An
    input of uint8 is given the pixels in 255ths, rounded. Needs the extra `gossamer[onnx]`.

    Raises ConfigError where onnxruntime is missing or the output is not clear, DataError where the file is none, or
    its input is not one batch of images.
    """

    def __init__(self, path: str | Path, *, output: str | None = None) -> None:
        path = Path(path)
        super().__init__(path.stem)
        self.path = path
        self.session = _open(path)
        self.input_name, self.shape, self.kind = _input(self.session, path)
        self.output_name = _output(self.session, path, output)

    @property
    def rounds(self) -> bool:
        """Whether the file takes whole pixel levels, so that what lies between them is rounded."""
        return self.kind == BYTES

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K), in at least float32, for x: (N, C, H, W) in [0, 1].

        Raises DataError for images of another shape than the file's.
        """
        self._check(tuple(x.shape[1:]))
        images = self._encode(x)
        size = self.shape[0] if isinstance(self.shape[0], int) else max(len(images), 1)
        parts = [self._run(images[start : start + size], size) for start in range(0, len(images), size)]
        return as_logits(np.concatenate(parts), self.label).to(x.device)

    def _encode(self, x: Tensor) -> Array:
        images = x.detach().cpu()
        if self.rounds:
            return (images * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        return images.numpy().astype(FLOATS[self.kind])

    def _run(self, images: Array, size: int) -> Array:
        missing = size - len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        (logits,) = self.session.run([self.output_name], {self.input_name: np.ascontiguousarray(filled)})
        return logits[: len(images)]

    def _check(self, shape: tuple[int, ...]) -> None:
        wanted = self.shape[1:]
        if len(shape) == 3 and all(not isinstance(w, int) or w == s for w, s in zip(wanted, shape, strict=True)):
            return
        raise DataError(
            f"images for {self.path.name}",
            expected=f"shape (N, {', '.join(str(each) for each in wanted)})",
            got=("N", *shape),
            remedy="for channels last give lambda x: model(x.permute(0, 2, 3, 1))"
            if wanted[2] == shape[0]
            else "evaluate on data of the shape the model was made for",
        )


def _open(path: Path) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415  (an extra, needed here alone)
    except ImportError as error:
        raise ConfigError(
            f"model {path.name}",
            expected="onnxruntime to run an ONNX file",
            got="no such package",
            remedy="write pip install 'gossamer[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
    # Its errors share no base but Exception.
    except Exception as error:
        raise DataError(
            str(path),
            expected="an ONNX file that onnxruntime can run",
            got=str(error).splitlines()[0],
            remedy="check the path, keep the .data file beside it, or export the model again",
        ) from error


def _input(session: Any, path: Path) -> tuple[str, list[int | str | None], str]:
    inputs = session.get_inputs()
    first = inputs[0] if len(inputs) == 1 else None
    if first is not None and len(first.shape) == 4 and first.type in (*FLOATS, BYTES):
        return first.name, first.shape, first.type
    raise DataError(
        str(path),
        expected=f"one input of images (N, C, H, W), {', '.join((*FLOATS, BYTES))}",
        got="; ".join(f"{each.name} {each.shape} {each.type}" for each in inputs) or "none",
        remedy="export the part of the model from images to logits",
    )


def _output(session: Any, path: Path, name: str | None) -> str:
    names = [each.name for each in session.get_outputs()]
    if name is None and len(names) == 1:
        return names[0]
    if name is not None and name in names:
        return name
    raise ConfigError(
        f"output of {path.name}",
        expected=f"one of {', '.join(names)}",
        got="no choice among several" if name is None else name,
        remedy=f'write OnnxModel(path, output="{names[0]}") with the name of the logits',
    )
