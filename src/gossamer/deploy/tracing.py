"""How is a network frozen and traced for other runtimes? A plain copy, and one program for any number of images."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.models.folding import plain_copy

OPERATOR = re.compile(r"(?:aten|torch_sparse|prims|torchvision)[.:]+[A-Za-z_]\w*(?:\.\w+)?|OpOverload\(op='([^']+)'")
BATCH = 2
"""Images of the traced batch: no operator may tell it from another number, and 0 and 1 count as constants."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frozen:
    """A plain copy of a network in eval mode on the CPU, and what it makes of a few images.

    module: parameters without gradients; images: (N, C, H, W) float32, at least two; logits: (N, classes).
    """

    module: nn.Module
    images: Tensor
    logits: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        """How many logits an image has."""
        return self.logits.shape[1]


def freeze(model: nn.Module, example: Tensor) -> Frozen:
    """Return the frozen copy of a network; the network stays as it is.

    example: (N, C, H, W) floats in [0, 1]. Raises ConfigError for weights that are drawn anew at every read, images
    that the network refuses, and anything but one output of logits (N, classes).
    """
    images = _images(example)
    check_pure(model)
    module = _copy(model)
    return Frozen(module=module, images=images, logits=logits_of(module, images))


def trace(frozen: Frozen) -> torch.export.ExportedProgram:
    """Return the network as a torch.export program for any number of images; raises ConfigError, naming what fails."""
    batch = frozen.images[:BATCH]
    try:
        with quietly(), torch.no_grad():
            return torch.export.export(
                frozen.module, (batch,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
            )
    except Exception as error:
        raise refusal(error, "a forward that torch.export can trace for any number of images") from error


def refusal(error: BaseException, expected: str) -> ConfigError:
    """Return the error of an exporter that gave up, which names the operator where the exporter does."""
    found, cause = _culprit(error)
    return ConfigError(
        f"export: {found}" if found else "export: model",
        expected=expected,
        got=f"{type(cause).__name__}: {told(cause)}",
        remedy=f"replace {found} by convolutions, linear layers, norms, ReLU, sums and poolings"
        if found
        else "let no `if`, loop or shape depend on the values of images or on how many there are",
    )


def told(error: BaseException) -> str:
    """Return the first line of an error, at most 200 letters."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:200]


@contextlib.contextmanager
def quietly() -> Generator[None]:
    """Keep the remarks that exporters make of their own internals from the user: warnings, logs and prints."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), _muted():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def check_pure(model: nn.Module) -> None:
    """Raise ConfigError where weights are drawn anew at every read, or a layer cannot be seen into."""
    for name, part in model.named_modules():
        if getattr(part, "pure", True) is False:
            raise ConfigError(
                f"export: {name.partition('.parametrizations')[0] or 'model'}",
                expected="weights that stay as they are",
                got=f"{type(part).__name__}, which draws anew or cannot be seen into",
                remedy="export the noise-free network, its twin",
            )


@contextlib.contextmanager
def _muted() -> Generator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _images(example: Tensor) -> Tensor:
    if example.ndim == 4 and example.is_floating_point() and min(example.shape) > 0:
        images = example.detach().to("cpu", torch.float32)
        return images if len(images) >= BATCH else images.repeat(BATCH, 1, 1, 1)
    raise ConfigError(
        "export: example",
        expected="at least one image, (N, C, H, W) floats",
        got=f"{example.dtype} of shape {tuple(example.shape)}",
        remedy="pass a batch as the network takes it, such as torch.rand(1, 3, 32, 32)",
    )


def _copy(model: nn.Module) -> nn.Module:
    try:
        copy = plain_copy(model)
    except Exception as error:
        raise ConfigError(
            "export: model",
            expected="a network that can be copied and whose weights are fixed",
            got=f"{type(model).__name__}: {error}",
            remedy="export the finalised or noise-free network; call torch.nn.utils.prune.remove where it was used",
        ) from error
    for name, tensor in (*copy.named_parameters(), *copy.named_buffers()):
        if tensor.is_complex():
            raise ConfigError(
                f"export: {name}",
                expected="real numbers",
                got=str(tensor.dtype),
                remedy="artifacts have no complex arithmetic: replace the layer",
            )
    return copy.to("cpu", torch.float32)


def logits_of(module: nn.Module, images: Tensor) -> Tensor:
    """Return a network's logits (N, classes) for images; raises ConfigError where it takes or gives anything else."""
    try:
        with torch.no_grad():
            logits: object = module(images)
    except Exception as error:
        raise ConfigError(
            "export: example",
            expected="images the network takes as its one input",
            got=f"{type(error).__name__}: {told(error)}",
            remedy="pass an example of the right size, and wrap a network of several inputs in a module of one",
        ) from error
    if isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(images):
        return logits
    shape = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    raise ConfigError(
        "export: model",
        expected="one output, logits (N, classes)",
        got=shape,
        remedy="wrap the network in a module whose forward returns the logits alone, flattened",
    )


def _culprit(error: BaseException) -> tuple[str, BaseException]:
    """Return the operator that the innermost of chained errors names, "" where none does, and that error."""
    found, speaker = "", error
    cause: BaseException | None = error
    while cause is not None:
        match = OPERATOR.search(str(cause))
        if match is not None:
            found, speaker = match.group(1) or match.group(0), cause
        cause = cause.__cause__ or cause.__context__
    return found.replace("::", "."), speaker
