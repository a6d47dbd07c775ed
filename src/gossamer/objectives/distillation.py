"""Distillation from a robust network on clean images, with hidden layers that forget the input and keep the label.

Source: Jian et al., "Pruning Adversarially Robust Neural Networks without Adversarial Examples" (PwoA), ICDM 2022, and
its released code; the bottleneck terms: Ma et al., "The HSIC Bottleneck", AAAI 2020; Wang et al., NeurIPS 2021.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gossamer.errors import ConfigError
from gossamer.objectives.checks import check_share, check_weight
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.sparsity.targets import PRUNABLE
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """weight * KD + sum over hidden layers of [lambda_x * nHSIC(x, z) - lambda_y * nHSIC(y, z)], on clean images.

    KD = T^2 * KL(p_teacher || p_student) of logits over T, averaged over batch and classes as published, so that the
    batch mean has weight / classes. weight: None for the number of classes, which gives the published 10 and 100.
    mix_ratio: probability that a batch is attacked instead (the student is); 0 is the method proper. teacher: frozen,
    in eval mode; `taught_by` completes the objective with it. Where both lambdas are 0, nothing is hooked.
    """

    weight: float | None = None
    temperature: float = 30.0
    lambda_x: float = 0.0
    lambda_y: float = 0.0
    sigma: float = 5.0
    mix_ratio: float = 0.0
    teacher: nn.Module | None = None

    def __post_init__(self) -> None:
        check_weight("method.lambda_x", self.lambda_x, "write 2e-5, as published for CIFAR-10, or 0")
        check_weight("method.lambda_y", self.lambda_y, "write 1e-4, as published for CIFAR-10, or 0")
        check_share("method.mix_ratio", self.mix_ratio, "write 0 for clean images alone, as published")
        if self.weight is not None:
            check_weight("method.distillation", self.weight, "leave it out for the number of classes, as published")
        for subject, value in (("method.temperature", self.temperature), ("distillation.sigma", self.sigma)):
            if not 0.0 < value < math.inf:
                raise ConfigError(subject, expected="a finite number above 0", got=value, remedy="leave it out")

    def taught_by(self, teacher: nn.Module) -> "Distillation":
        """Return the objective with its teacher, frozen in eval mode."""
        return replace(self, teacher=teacher.eval().requires_grad_(False))

    def craft(self, model: nn.Module, batch: Batch, attack: Attack | None, state: State, *, draws: Draws) -> Tensor:
        """Return batch.x: (N, C, H, W), or for a share mix_ratio of the batches its adversarial examples."""
        if self.mix_ratio == 0.0 or float(draws.at("mix").uniform(())) >= self.mix_ratio:
            return batch.x
        return attack_inputs("distillation", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the loss on x_adv: (N, C, H, W); parts: distillation, and bottleneck where there is one.

        Raises ConfigError without a teacher.
        """
        if self.teacher is None:
            raise ConfigError(
                "objective distillation", expected="a teacher", got="none", remedy="complete it by taught_by"
            )
        with torch.no_grad():
            taught = self.teacher(x_adv)
        logits, hidden = self._forward(model, x_adv)
        distilled = distillation(taught, logits, self.temperature)
        weight = logits.shape[1] if self.weight is None else self.weight
        total, parts = weight * distilled, {"distillation": distilled.detach()}
        if hidden:
            pressed = self._bottleneck(x_adv, batch.y, hidden, logits.shape[1])
            total, parts = total + pressed, {**parts, "bottleneck": pressed.detach()}
        name = "natural" if x_adv is batch.x else "adversarial"
        return Loss(total=total, parts=parts, logits={name: logits.detach()})

    def _forward(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        if self.lambda_x == 0.0 and self.lambda_y == 0.0:
            return model(x), ()
        # A compiled module does not see hooks that come and go; the one it was compiled from does.
        plain = getattr(model, "_orig_mod", model)
        with hidden_outputs(plain) as hidden:
            return plain(x), hidden

    def _bottleneck(self, x: Tensor, y: Tensor, hidden: Sequence[Tensor], classes: int) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            inputs = normalised(gaussian_kernel(x, self.sigma))
            labels = normalised(linear_kernel(F.one_hot(y, classes).to(x.dtype)))
            terms = [normalised(gaussian_kernel(z.to(x.dtype), self.sigma)) for z in hidden]
            return torch.stack(
                [self.lambda_x * dependence(inputs, z) - self.lambda_y * dependence(labels, z) for z in terms]
            ).sum()


def distillation(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over batch and classes; (N, K) each."""
    wanted, given = (F.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    return temperature**2 * (wanted.exp() * (wanted - given)).mean()


def gaussian_kernel(features: Tensor, sigma: float) -> Tensor:
    """Return exp(-|u_i - u_j|^2 / (2 sigma^2 d)) of features (m, ...) with d numbers each: (m, m)."""
    flat = features.flatten(1)
    squares = flat.square().sum(dim=1)
    distances = (squares[:, None] + squares[None, :] - 2.0 * flat @ flat.T).clamp(min=0.0)
    return torch.exp(-distances / (2.0 * sigma**2 * flat.shape[1]))


def linear_kernel(features: Tensor) -> Tensor:
    """Return u_i . u_j of features (m, d): (m, m)."""
    return features @ features.T


def normalised(kernel: Tensor) -> Tensor:
    """Return K~ (K~ + 1e-5 m I)^-1 with K~ = K H, H = I - 1 1^T / m; kernel: (m, m)."""
    size = len(kernel)
    centred = kernel - kernel.mean(dim=1, keepdim=True)
    shifted = centred + 1e-5 * size * torch.eye(size, device=kernel.device, dtype=kernel.dtype)
    return torch.linalg.solve(shifted, centred, left=False)


def dependence(first: Tensor, second: Tensor) -> Tensor:
    """Return nHSIC, the trace of the product of two normalised kernels: a scalar, 0 for independent features."""
    return (first * second.T).sum()


@contextmanager
def hidden_outputs(model: nn.Module) -> Generator[list[Tensor]]:
    """Note what the hidden layers of a model give while the context lasts; no hook outlives it."""
    noted: list[Tensor] = []

    def note_output(*call: Any) -> None:
        noted.append(call[-1])

    def note_input(*call: Any) -> None:
        noted.append(call[1][0])

    *hidden, last = layers_and_blocks(model)
    handles = [module.register_forward_hook(note_output) for module in hidden]
    handles.append(last.register_forward_pre_hook(note_input))
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def layers_and_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the first convolution, every block and every layer outside a block, in module order.

    A block is a module of a class of its own that holds prunable layers; a chain of modules is none. A model that is
    one block is looked into. The last one stands for the classifier: what goes into it are the pooled features.
    """
    found = [part for child in model.children() for part in _parts(child)]
    if len(found) == 1 and not isinstance(found[0], PRUNABLE):
        return layers_and_blocks(found[0])
    return found


def _parts(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, PRUNABLE):
        return [module]
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return [part for child in module.children() for part in _parts(child)]
    return [module] if any(isinstance(part, PRUNABLE) for part in module.modules()) else []
