"""How does a network become a torch.export program, and why is one loaded only when it is trusted?

`torch.export.load` of torch 2.13 runs code that the file holds, and no check of its members makes it safe:

- it unpickles: weights and constants whose entry says `use_pickle`, constants named `opaque_obj_`, and the sample
  inputs, which fall back from `weights_only=True` to unrestricted pickle when the former fails;
- without any pickle, expressions of the program's JSON go through `sympy.sympify`, which evaluates Python;
- operators are looked up by name below `torch`, where `torch.os.system` is one;
- compiled members are loaded as native libraries.

So `read_torch` refuses unless it is told that the file is trusted. A file of other hands is better asked for as ONNX or
as a sparse file, which are data.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.deploy.parity import check_exact, parity, probes
from gossamer.deploy.tracing import freeze, quietly, refusal, told, trace
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation.adapters import TorchFunction, as_module
from gossamer.runs import atomic

ABOUT = "about.json"


def write_torch(model: nn.Module, example: Tensor, path: Path, *, about: Mapping[str, str] | None = None) -> None:
    """Write a network as a torch.export program for any number of images, atomically; the network stays as it is.

    example: (N, C, H, W) floats in [0, 1]. about: texts kept in the file. Raises ConfigError for what torch.export
    cannot trace, naming it, RunError where the program computes other logits, by more than 1e-4 of the largest.
    """
    frozen = freeze(model, example)
    program = trace(frozen)
    images = torch.cat([frozen.images[:16], probes(frozen.shape)])
    buffer = io.BytesIO()
    try:
        with quietly():
            torch.export.save(program, buffer, extra_files={ABOUT: json.dumps(dict(about or {}))})
            stored: Any = torch.export.load(io.BytesIO(buffer.getvalue()))
    except Exception as error:
        raise refusal(error, "a program that torch can store") from error
    check_exact(parity(frozen.module, as_module(stored.module()), images), path.name)
    atomic.write_bytes(path, buffer.getvalue())


def read_torch(path: Path, *, trust: bool) -> nn.Module:
    """Return the network of a program, with gradients; loading it runs what the file says.

    trust: that the caller knows who wrote it. Raises ConfigError without it, DataError for a file that is none.
    """
    if not trust:
        raise ConfigError(
            str(path),
            expected="a word that you trust it: torch.export.load runs code from the file",
            got="none",
            remedy="write --trust (trust=True) if you made the file, or export to onnx or sparse, which are data",
        )
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "no archive")
    try:
        with quietly(), path.open("rb") as file:
            program: Any = torch.export.load(file)
            return TorchFunction(partial(_on_the_cpu, program.module()), path.stem)
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {told(error)}") from error


def _on_the_cpu(program: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return logits on x's device: what was exported on the CPU holds its weights there, wherever its module goes."""
    return program(x.cpu()).to(x.device)


def _damaged(path: Path, got: str) -> DataError:
    return DataError(
        str(path),
        expected="a torch.export program",
        got=got,
        remedy="export it again, with the torch that is to run it",
    )
