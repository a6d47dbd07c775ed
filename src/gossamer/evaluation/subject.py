"""What is attacked and what is judged: the user's model at rest, and its folded surrogate where there is one."""

import copy
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import crafting
from gossamer.errors import ConfigError, DataError, GossamerError
from gossamer.evaluation.judge import predict
from gossamer.kernels import accelerator
from gossamer.models.folding import build_surrogate
from gossamer.sparsity.targets import PRUNABLE, targets
from gossamer.types import Model, Precision


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model under attack. model: judges; surrogate: where candidates are sought first, or None."""

    model: nn.Module
    surrogate: Model | None
    device: torch.device

    @property
    def attacked(self) -> Model:
        """Where candidates are sought first."""
        return self.model if self.surrogate is None else self.surrogate


@contextmanager
def at_rest(model: nn.Module, device: torch.device | str | None = None) -> Generator[nn.Module]:
    """Hold a model in eval mode with frozen parameters; modes, `requires_grad` and buffers come back to the bit.

    Where `device` is another than the model's, a copy there is held. The global random state comes back too, so a
    model that draws noise from it leaves its user's draws alone.
    """
    place = place_of(model, device)
    held = model if place == place_of(model) else copy.deepcopy(model).to(place)
    with ExitStack() as restoring:
        restoring.enter_context(torch.random.fork_rng(devices=[place] if place.type == "cuda" else []))
        # "batch" is the mode that puts every buffer back, whatever an attack or a user's module does to it.
        restoring.enter_context(crafting(held, "batch"))
        restoring.enter_context(torch.enable_grad())
        held.eval()
        yield held


def seed_noise(seed: int, device: torch.device) -> None:
    """Seed the global generators that a stochastic model draws from."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def prepare(
    model: nn.Module,
    *,
    fast: bool,
    example: Tensor,
    precision: Precision = "float32",
    compile: bool = False,  # noqa: A002
) -> Subject:
    """Return the subject of a model at rest; fast: look for a surrogate that agrees on example: (B, C, H, W).

    With precision bf16, candidates are sought in it, on the surrogate or else the model; the model judges in its own.
    compile: the surrogate runs on kernels compiled for this machine, where there are any for the device; raises
    ConfigError where they cannot be compiled.
    """
    rewrite = accelerator(example.device) if fast and compile else None
    surrogate: Model | None = build_surrogate(model, example=example, rewrite=rewrite) if fast else None
    if precision == "bf16":
        surrogate = _in_bf16(surrogate or model, example.device)
    return Subject(model=model, surrogate=surrogate, device=example.device)


def _in_bf16(model: Model, device: torch.device) -> Model:
    def call(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return model(x).float()

    return call


def count_classes(model: nn.Module, image: Tensor) -> int:
    """Return the number of logits K for one image: (1, C, H, W).

    Raises DataError where the model refuses the image, ConfigError where it gives no logits.
    """
    try:
        return predict(model, image).shape[1]
    except GossamerError:
        raise
    except (RuntimeError, ValueError) as error:
        raise DataError(
            "images",
            expected="a shape and type that the model takes",
            got=f"{tuple(image.shape[1:])} of {image.dtype}, refused with: {str(error).splitlines()[0]}",
            remedy="evaluate on data of the shape the model was made for",
        ) from error


def count_weights(model: nn.Module) -> tuple[int, int]:
    """Return (weights, nonzero) of the effective convolution and linear kernels of a model."""
    kernels = [target.weight for target in targets(model)] if _has_kernels(model) else []
    return sum(kernel.numel() for kernel in kernels), sum(int(kernel.count_nonzero()) for kernel in kernels)


def of_parent(weights: int, nonzero: int, dense_weights: int | None) -> tuple[int, int]:
    """Return (weights, nonzero) against the weights of the dense parent, where they are given and can hold them.

    A network of several others stores more nonzeros than one parent has: it is counted for itself.
    """
    if dense_weights is None or nonzero > dense_weights:
        return weights, nonzero
    return dense_weights, nonzero


def place_of(model: nn.Module, device: torch.device | str | None = None) -> torch.device:
    """Return `device` with its number, or where None, that of the model's first tensor; the CPU if it has none.

    Raises ConfigError for a device that this machine does not have.
    """
    if device is None:
        tensor = next(chain(model.parameters(), model.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device
    try:
        return torch.empty(0, device=device).device
    # Torch built without an accelerator asserts.
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            "device",
            expected="a device of this machine",
            got=f"{device}: {str(error).splitlines()[0]}",
            remedy="write cpu, or leave it out to stay where the model is",
        ) from error


def _has_kernels(model: nn.Module) -> bool:
    return any(isinstance(module, PRUNABLE) for module in model.modules())
