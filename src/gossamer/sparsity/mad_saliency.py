"""Masking adversarial damage: how much does the adversarial loss curve in the direction that would mask a weight?

Source: Lee et al., "Masking Adversarial Damage: Finding Adversarial Saliency for Robust and Sparse Network", CVPR 2022,
and its released code.

For every batch, masks f(t) = softplus(t) in [1e-4, 1] start at 1 and are shrunk by 20 steps of Adam (rate 0.1) that
lower the loss of the adversarial images; Delta = w * (1 - f(t)) is what they take away. One more backward pass of the
masked network gives the Kronecker factors of the Fisher information: A = E[a a^T] of a layer's inputs (patches, each
divided by the number of positions) and the diagonal of G = E[g g^T] of the gradients at its outputs (each multiplied
by the size of the batch and the number of positions). The saliency is S_ij = 0.5 * G_ii * Delta_ij * (Delta A)_ij,
averaged over batches. It can be negative.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam, Optimizer

from gossamer.losses import cross_entropy
from gossamer.seeding import Draws
from gossamer.sparsity.choose import best_of_all, best_of_each
from gossamer.sparsity.finalize import plain_copy
from gossamer.sparsity.held_mask import HeldMask
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.targets import Target, targets

Removes: TypeAlias = Literal["least", "most", "random"]

# softplus^-1 of the bounds of a mask.
SMALLEST, LARGEST = math.log(math.expm1(1e-4)), math.log(math.expm1(1.0))


def saliency(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, steps: int = 20) -> dict[str, Tensor]:
    """Return S of every kernel, and of the bias of every linear layer, each in its shape.

    batches: (x_adv: (N, C, H, W) in [0, 1], y: (N,)); the model stays as it is and is used in eval mode.
    """
    copy = plain_copy(model).requires_grad_(False)
    masked = _maskable(copy)
    total = {name: torch.zeros_like(value) for name, value in masked.items()}
    count = 0
    for x_adv, y in batches:
        count += 1
        with torch.enable_grad():
            scored = _of_batch(copy, masked, x_adv, y, steps)
        for name, value in scored.items():
            total[name] += value
    return {name: value / max(count, 1) for name, value in total.items()}


@torch.no_grad()
def cut(model: nn.Module, scores: Mapping[str, Tensor], density: float) -> None:
    """Set the least salient weights of a plain model to zero, signed values in rising order, the later of ties first.

    Convolutions: int((1 - density) * n) of them all together. Linear layers: int((1 - density) * (inputs + 1)) of every
    row, the bias being one more input; without a bias int((1 - density) * inputs). scores: as `saliency` gives them.
    """
    layers = {layer.name: layer for layer in targets(model)}
    linear = {name: layer for name, layer in layers.items() if isinstance(layer.module, nn.Linear)}
    kernels = {name: scores[name] for name in layers if name not in linear}
    if kernels:
        size = sum(value.numel() for value in kernels.values())
        _apply(layers, best_of_all(kernels, size - int((1.0 - density) * size)))
    for name, layer in linear.items():
        bias = _bias(layer)
        rows = scores[name] if bias is None else _with_bias(scores, name)
        keep = rows.shape[1] - int((1.0 - density) * rows.shape[1])
        chosen = torch.stack(list(best_of_each(_by_row(rows), {str(i): keep for i in range(len(rows))}).values()))
        inputs = layer.parameter.shape[1]
        layer.parameter.masked_fill_(~chosen[:, :inputs], 0.0)
        if bias is not None:
            bias.masked_fill_(~chosen[:, inputs], 0.0)


def controlled(scores: Mapping[str, Tensor], removes: Removes, draws: Draws) -> dict[str, Tensor]:
    """Return the scores themselves, their negatives (the most salient go first), or chance: the paper's controls."""
    if removes == "least":
        return dict(scores)
    if removes == "most":
        return {name: -value for name, value in scores.items()}
    return {name: draws.at(name).uniform(value.shape).to(value.device) for name, value in scores.items()}


class HeldWithBiases(HeldMask):
    """Hold the zeros of kernels, and of the biases of linear layers beside them."""

    def __init__(self) -> None:
        super().__init__(contract="reported")
        self._biases: list[tuple[nn.Parameter, Tensor]] = []

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Take the masks from kernels and biases as they stand."""
        super().attach(model, draws, horizon)
        biases = [_bias(layer) for layer in self._layers]
        self._biases = [(bias, bias.detach() != 0) for bias in biases if bias is not None]

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Zero the gradients of what is gone."""
        super().before_step(step, optimizer)
        for bias, mask in self._biases:
            if bias.grad is not None:
                bias.grad.masked_fill_(~mask, 0.0)

    @torch.no_grad()
    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Zero what is gone, and its momentum."""
        super().after_step(step, optimizer)
        for bias, mask in self._biases:
            bias.masked_fill_(~mask, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks."""
        return {**super().state_dict(), **{f"#bias/{i}": mask for i, (_, mask) in enumerate(self._biases)}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        super().load_state_dict(state)
        self._biases = [(bias, state[f"#bias/{i}"].to(bias.device)) for i, (bias, _) in enumerate(self._biases)]


def _maskable(model: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in targets(model):
        found[layer.name] = layer.parameter.detach()
        bias = _bias(layer)
        if bias is not None:
            found[_bias_of(layer.name)] = bias.detach()
    return found


def _bias(layer: Target) -> nn.Parameter | None:
    """Return the bias that counts as one more input of a layer: that of a linear one."""
    bias: object = getattr(layer.module, "bias", None)
    return bias if isinstance(layer.module, nn.Linear) and isinstance(bias, nn.Parameter) else None


def _bias_of(name: str) -> str:
    return f"{name.removesuffix('weight')}bias"


def _of_batch(model: nn.Module, masked: Mapping[str, Tensor], x: Tensor, y: Tensor, steps: int) -> dict[str, Tensor]:
    logits = {name: torch.full_like(value, LARGEST).requires_grad_() for name, value in masked.items()}
    optimizer = Adam(logits.values(), lr=0.1)

    def loss() -> Tensor:
        kept = {name: value * F.softplus(logits[name]) for name, value in masked.items()}
        return cross_entropy(functional_call(model, kept, (x,)), y).mean()

    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        with torch.no_grad():
            for value in logits.values():
                value.clamp_(SMALLEST, LARGEST)
    taken = {name: value * masked_share(logits[name].detach()) for name, value in masked.items()}
    with _seen(model) as calls:
        last = loss()
    places = [(layer, inputs, outputs) for layer in targets(model) for inputs, outputs in calls[layer.name]]
    gradients = torch.autograd.grad(last, [outputs for _, _, outputs in places], materialize_grads=True)
    scored = {name: torch.zeros_like(value) for name, value in masked.items()}
    for (layer, inputs, _), gradient in zip(places, gradients, strict=True):
        for name, value in curvature(layer, inputs, gradient, taken).items():
            scored[name] += value
    return scored


def masked_share(logits: Tensor) -> Tensor:
    """Return 1 - softplus(t), what a mask takes away, in the shape of its logits."""
    # A mask that never left 1 took nothing, whatever softplus rounds to there.
    return torch.where(logits >= LARGEST, 0.0, 1.0 - F.softplus(logits))


@contextmanager
def _seen(model: nn.Module) -> Generator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Note what goes into and comes out of every prunable layer."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {layer.name: [] for layer in targets(model)}

    def note(name: str, _: nn.Module, inputs: Any, outputs: Tensor) -> None:
        calls[name].append((inputs[0].detach(), outputs))

    handles = [layer.module.register_forward_hook(partial(note, layer.name)) for layer in targets(model)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def curvature(layer: Target, inputs: Tensor, gradient: Tensor, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return 0.5 * G_ii * Delta_ij * (Delta A)_ij of a layer: for its kernel, and for the bias of a linear one.

    Delta A is the gradient at Delta of |layer(a; Delta)|^2 / 2 over batch and squared positions, so that A, quadratic
    in the inputs of a layer, is never formed.
    """
    names = [layer.name] if _bias(layer) is None else [layer.name, _bias_of(layer.name)]
    shifts = [taken[name].clone().requires_grad_() for name in names]
    values = {name.rpartition(".")[2]: shift for name, shift in zip(names, shifts, strict=True)}
    if isinstance(layer.module.bias, Tensor):
        values.setdefault("bias", torch.zeros_like(layer.module.bias))
    moved = functional_call(layer.module, values, (inputs,))
    batch, outputs = len(moved), layer.parameter.shape[0]
    positions = moved.numel() // (batch * outputs)
    products = torch.autograd.grad(0.5 * moved.square().sum() / (batch * positions**2), shifts)
    channel = -1 if isinstance(layer.module, nn.Linear) else 1
    diagonal = gradient.transpose(channel, -1).reshape(-1, outputs).square().sum(dim=0) * batch * positions
    return {
        name: 0.5 * diagonal.view(-1, *[1] * (shift.ndim - 1)) * shift.detach() * product
        for name, shift, product in zip(names, shifts, products, strict=True)
    }


def _with_bias(scores: Mapping[str, Tensor], name: str) -> Tensor:
    return torch.cat([scores[name], scores[_bias_of(name)][:, None]], dim=1)


def _by_row(rows: Tensor) -> dict[str, Tensor]:
    return {str(i): row for i, row in enumerate(rows)}


def _apply(layers: Mapping[str, Target], masks: Masks) -> None:
    for name, mask in masks.items():
        layers[name].parameter.masked_fill_(~mask, 0.0)
