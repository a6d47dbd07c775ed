"""How does a model that is no float32 module become one? Adapters that are attacked and judged like any network."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.types import Model

Outputs: TypeAlias = Literal["logits", "probabilities"]
Array: TypeAlias = NDArray[Any]


class Foreign(nn.Module):
    """A model whose inside is not seen: never traced, shared by its copies; label: what a result calls it."""

    pure = False

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def __deepcopy__(self, memo: dict[int, Any]) -> "Foreign":
        return self


class TorchFunction(Foreign):
    """A function of torch tensors: (N, C, H, W) in [0, 1] to logits (N, K), with gradients where autograd follows."""

    def __init__(self, function: Model, label: str | None = None) -> None:
        super().__init__(label or _called(function))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for x: (N, C, H, W); raises ConfigError where they are a NumPy array."""
        logits = cast("object", self.function(x))
        if isinstance(logits, np.ndarray):
            raise ConfigError(
                f"model {self.label}",
                expected="a torch tensor of logits",
                got="a NumPy array",
                remedy="give gossamer.evaluation.NumpyModel(function)",
            )
        return cast("Tensor", logits)


class NumpyModel(Foreign):
    """A function of NumPy arrays: (N, C, H, W) float32 in [0, 1] to logits (N, K); without gradients.

    What np.asarray reads (JAX, TensorFlow) may be returned too.
    """

    def __init__(self, function: Callable[[Array], Any], label: str | None = None) -> None:
        super().__init__(label or _called(function))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K), in at least float32, for x: (N, C, H, W)."""
        # A copy: the function may write into what it is given.
        images = x.detach().to("cpu", torch.float32, copy=True).numpy()
        return as_logits(np.asarray(self.function(images)), self.label).to(x.device)


class InDtype(nn.Module):
    """A module whose tensors are not float32, given images in its own floating type."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's output for x: (N, C, H, W)."""
        return self.model(x.to(self.dtype))


class LogProbabilities(nn.Module):
    """The logarithm of a model's class probabilities: logits up to a constant for each image.

    Probabilities below the smallest normal number of their type, at least float32, count as that number.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return log p: (N, K) for x: (N, C, H, W)."""
        probabilities = self.model(x)
        dtype = torch.promote_types(probabilities.dtype, torch.float32)
        return probabilities.to(dtype).clamp(min=torch.finfo(dtype).tiny).log()


def as_module(model: nn.Module | Model, *, outputs: Outputs = "logits") -> nn.Module:
    """Return a module that maps float32 images (N, C, H, W) in [0, 1] to logits (N, K).

    model: a module, whose tensors may be of another floating type, or a function of torch tensors; NumPy functions
    and ONNX files come as `NumpyModel` and `OnnxModel`. outputs: what the model gives; of probabilities the logarithm
    is taken. What has been adapted stays as it is. Raises ConfigError for anything else.
    """
    if outputs not in get_args(Outputs):
        raise ConfigError(
            "outputs", expected=" or ".join(get_args(Outputs)), got=repr(outputs), remedy="write logits for raw scores"
        )
    if isinstance(model, LogProbabilities):
        return model
    module = _adapted(model)
    return module if outputs == "logits" else LogProbabilities(module)


def name_of(model: nn.Module | Model) -> str:
    """Return what a result calls a model: the name of its class, its function or its file."""
    if isinstance(model, InDtype | LogProbabilities):
        return name_of(model.model)
    return model.label if isinstance(model, Foreign) else _called(model)


def as_logits(output: Array, label: str) -> Tensor:
    """Return a model's output as a tensor on the CPU, in at least float32; ConfigError for anything but floats."""
    if not np.issubdtype(output.dtype, np.floating):
        raise ConfigError(
            f"model {label}",
            expected="logits of a floating type",
            got=output.dtype,
            remedy="return the scores of all classes rather than the predicted class",
        )
    return torch.from_numpy(np.array(output, dtype=np.promote_types(output.dtype, np.float32)))


def _adapted(model: nn.Module | Model) -> nn.Module:
    if not isinstance(model, nn.Module):
        return TorchFunction(_checked(model))
    # What torch.export made refuses train() and eval(): it has one mode, and is called as it is.
    if "train" in vars(model):
        return TorchFunction(model.__call__, _called(model))
    if isinstance(model, InDtype):
        return model
    dtype = _own_dtype(model)
    return model if dtype in (None, torch.float32) else InDtype(model, dtype)


def _checked(model: object) -> Model:
    if callable(model) and not isinstance(model, type):
        return cast("Model", model)
    raise ConfigError(
        "model",
        expected="a torch.nn.Module or a function of images (N, C, H, W)",
        got=f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__,
        remedy="make an instance of it" if isinstance(model, type) else "for a file give OnnxModel(path)",
    )


def _own_dtype(model: nn.Module) -> torch.dtype | None:
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else None


def _called(model: object) -> str:
    if isinstance(model, nn.Module):
        return type(model).__name__
    return getattr(model, "__name__", type(model).__name__)
