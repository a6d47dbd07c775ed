"""Who is timed? Artifacts, and the engines that a user would run the same network on instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.deploy.artifact import CompiledModel, kind_of, open_artifact
from gossamer.deploy.capture import capture
from gossamer.deploy.csr import SparseRows
from gossamer.deploy.device import installed
from gossamer.deploy.onnx_file import PACKAGES, write_onnx
from gossamer.deploy.scratch import scratch
from gossamer.deploy.simplify import simplify
from gossamer.errors import ConfigError
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.models.folding import plain_copy

Forward: TypeAlias = Callable[[Tensor], Tensor]

ON_ANY_DEVICE = ("sparse",)
"""Kinds of artifacts that torch runs, on a GPU too."""

SETTINGS = 256
"""Shapes and numbers of threads for which one network is compiled; after torch's own 8 it runs uncompiled, unsaid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """One of them, in values that can be sent to a fresh process.

    name: of the file, or of the engine. path, trust: of an artifact; network: what an engine runs, or what a sparse
    file that names no network is loaded into.
    """

    name: str
    kind: str
    path: Path | None = None
    trust: bool = False
    network: nn.Module | None = field(default=None, repr=False)

    def open(self, example: Tensor) -> Forward:
        """Return its forward, from images (N, C, H, W) on the example's device to logits, in torch's present threads.

        example: (N, C, H, W); the forward may be specialised to its shape, apart from N.
        """
        if self.path is not None:
            model = open_artifact(self.path, module=self.network, trust=self.trust).model
            if isinstance(model, CompiledModel) and torch.get_num_threads() > 1 and not model.compiled.threaded:
                raise ConfigError(
                    self.name,
                    expected="a compiler that has OpenMP, for several threads",
                    got="one that made it for a single thread",
                    remedy="install its OpenMP library, such as libomp, or write --threads 1",
                )
            return model.to(example.device)
        if self.network is None:
            raise ConfigError(self.name, expected="a network", got="none", remedy="write --run RUN")
        return ENGINES[self.name].open(plain_copy(self.network), example)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One engine. packages: that it needs; on_gpu: whether it runs there; dense: it takes no heed of zeros."""

    summary: str
    open: Callable[[nn.Module, Tensor], Forward]
    packages: tuple[str, ...] = ()
    on_gpu: bool = False
    dense: bool = True

    def missing(self, device: torch.device) -> str | None:
        """Return why it cannot take part, None where it can."""
        absent = [package for package in self.packages if not installed(package)]
        if absent:
            return f"not installed: {', '.join(absent)}"
        return None if self.on_gpu or device.type == "cpu" else f"does not run on {device.type} here"


def of_file(path: Path, *, trust: bool, network: nn.Module | None) -> Contestant:
    """Return the contestant that an artifact is; only a sparse file needs the network."""
    kind = kind_of(path)
    return Contestant(name=path.name, kind=kind, path=path, trust=trust, network=network if kind == "sparse" else None)


def _torch(network: nn.Module, example: Tensor) -> Forward:
    model: Any = network.to(example.device)
    model = model.to(memory_format=torch.channels_last)
    return lambda x: model(x.contiguous(memory_format=torch.channels_last))


def _torch_compile(network: nn.Module, example: Tensor) -> Forward:
    import torch._dynamo.config as tracer  # noqa: PLC0415  (slow, and needed here alone)
    import torch._inductor.config as inductor  # noqa: PLC0415

    model: Any = network.to(example.device)
    # What was compiled before of another network of the same classes counts towards the limit too.
    torch.compiler.reset()
    compiled: Any = torch.compile(model.to(memory_format=torch.channels_last), dynamic=False)
    freezing = example.device.type == "cpu"
    met: set[tuple[torch.Size, int]] = set()

    def forward(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        # What is compiled is so for a shape and a number of threads.
        setting = x.shape, torch.get_num_threads()
        if setting in met:
            return compiled(x)
        # Weights are constants only where tracing sees this, and not as an option of the compiler behind it.
        with inductor.patch(freezing=freezing), tracer.patch(recompile_limit=SETTINGS):
            logits = compiled(x)
        met.add(setting)
        return logits

    return forward


def _torch_csr(network: nn.Module, example: Tensor) -> Forward:
    return SparseRows(simplify(capture(network, example.cpu()))).to(example.device)


def _onnxruntime(network: nn.Module, example: Tensor) -> Forward:
    with scratch() as folder:
        path = folder / "network.onnx"
        write_onnx(network, example, path)
        return OnnxModel(path)


def _openvino(network: nn.Module, example: Tensor) -> Forward:
    import openvino  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (a peer, of no extra)

    with scratch() as folder:
        path = folder / "network.onnx"
        write_onnx(network, example, path)
        read: Any = openvino.Core().read_model(str(path))
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled: Any = openvino.compile_model(read, "CPU", threads)

    def forward(x: Tensor) -> Tensor:
        return torch.from_numpy(np.array(compiled([x.numpy()])[0]))

    return forward


ENGINES: Mapping[str, Engine] = {
    "torch": Engine(summary="torch, channels last", open=_torch, on_gpu=True),
    "torch-compile": Engine(summary="torch.compile, channels last", open=_torch_compile, on_gpu=True),
    "torch-csr": Engine(summary="im2col and torch's CSR matrices", open=_torch_csr, on_gpu=True, dense=False),
    "onnxruntime": Engine(summary="the network as an ONNX file", open=_onnxruntime, packages=PACKAGES),
    "openvino": Engine(summary="the same file in OpenVINO", open=_openvino, packages=(*PACKAGES, "openvino")),
}
"""What a network is run on instead of an artifact, by name."""
