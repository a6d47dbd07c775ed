"""Where training runs and in which precision: the one place that knows device, rank, memory format and compiler."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from gossamer.errors import ConfigError
from gossamer.kernels import FusedConvolution, accelerator
from gossamer.models.folding import Surrogate, build_surrogate
from gossamer.training.ranks import ALONE, Ranks
from gossamer.training.synchronised import synchronised
from gossamer.types import Batch

TrainingPrecision: TypeAlias = Literal["float32", "bf16", "float64"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device and how it computes, and the processes that train there together.

    float64 is for comparisons that must tell rounding from a fault. sync_batch_norm: statistics over all ranks' images;
    otherwise each rank normalises its own part of a batch, and the first one's running statistics count.
    """

    device: torch.device
    precision: TrainingPrecision = "float32"
    channels_last: bool = True
    compile: bool = False
    threads: int | None = None
    ranks: Ranks = ALONE
    sync_batch_norm: bool = False

    def prepare(self, model: nn.Module) -> nn.Module:
        """Move a model here, in this place's memory format and width of numbers, and return it."""
        model.to(self.device)
        if self.precision == "float64":
            model.double()
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue,reportArgumentType]
        return model

    def images(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in this place's memory format and width of numbers."""
        if self.precision == "float64":
            x = x.double()
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def batch(self, batch: Batch) -> Batch:
        """Return a batch whose images are in this place's memory format."""
        return replace(batch, x=self.images(batch.x))

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of forward passes: bf16 where asked for, nothing otherwise."""
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def synchronised(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context in which a model's batch norms see all ranks' images, where asked for."""
        return synchronised(model, self.ranks if self.sync_batch_norm else ALONE)

    def surrogate(self, model: nn.Module) -> Surrogate | None:
        """Return the folded copy that attacks run on here, on compiled kernels where asked for; None: see there."""
        return build_surrogate(model, rewrite=self._kernels())

    def compiled(self, module: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the module, compiled for static shapes where asked for; one that runs on our kernels stays as it is.

        Those have taken up all but a few of its operations already: compiling the rest was measured to gain nothing.
        """
        fused = any(isinstance(part, FusedConvolution) for part in module.modules())
        return torch.compile(module, dynamic=False) if self.compile and not fused else module

    def _kernels(self) -> Callable[[fx.GraphModule], None] | None:
        return accelerator(self.device) if self.compile and self.precision == "float32" else None


def place(
    device: str = "auto",
    *,
    precision: TrainingPrecision = "float32",
    channels_last: bool = True,
    compile: bool = False,  # noqa: A002
    threads: int | None = None,
    ranks: Ranks = ALONE,
    sync_batch_norm: bool = False,
) -> Place:
    """Return the place that a recipe names, and set this process's thread count.

    ranks: of several, each computes where it has joined. compile:
    kernels are compiled now, so that what fails does so before work starts. Raises ConfigError.
    """
    _check_synchronised(sync_batch_norm, compile)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if ranks.several:
        name = str(ranks.device)
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigError("device", expected="cpu, cuda or cuda:N", got=device, remedy=str(error)) from error
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError("device", expected="cpu, cuda or cuda:N", got=device, remedy="write auto, cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device", expected="a CUDA device", got="a torch build or machine without one", remedy="write cpu or auto"
        )
    if precision == "bf16" and chosen.type == "cpu":
        raise ConfigError(
            "training.precision",
            expected="float32 on a CPU",
            got="bf16",
            remedy="leave precision out, or train on a GPU",
        )
    if threads is not None:
        torch.set_num_threads(threads)
    if compile:
        accelerator(chosen)
    return Place(
        device=chosen,
        precision=precision,
        channels_last=channels_last,
        compile=compile,
        threads=threads,
        ranks=ranks,
        sync_batch_norm=sync_batch_norm,
    )


def _check_synchronised(sync_batch_norm: bool, compiled: bool) -> None:
    if sync_batch_norm and compiled:
        raise ConfigError(
            "machine.sync_batch_norm",
            expected="false beside machine.compile: a compiled network keeps its own batch norms",
            got=True,
            remedy="leave one of them out",
        )
