"""Binary weights: training moves real-valued latent weights, and the network computes with their signs.

Source: BinaryConnect (Courbariaux, Bengio & David, NeurIPS 2015); under adversarial training and over masks: Liu et
al., "Robust Binary Models by Pruning Randomly-initialized Networks", NeurIPS 2022.
"""

import copy
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.around import Around
from gossamer.sparsity.protocol import Averaged, Finalised, Horizon, Sparsifier
from gossamer.sparsity.targets import Target, targets

Scale: TypeAlias = Literal["none", "mean"]
LATENT_SIGNS = "latent-signs"


class SignThrough(torch.autograd.Function):
    """scale * sign(w); its gradient at w is scale * g where |w| <= 1, and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, scale: Tensor) -> Tensor:
        """Return the signs times the scale, zero where the latent weight is zero."""
        ctx.save_for_backward(latent, scale)
        return latent.sign() * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        """Return the gradient at the latent weights; the scale is a constant."""
        latent, scale = ctx.saved_tensors
        return torch.where(latent.abs() <= 1.0, gradients[0] * scale, 0.0), None


class Signs(nn.Module):
    """Parametrization from latent weights to their signs; zeros stay zeros, so that masks hold.

    scale: `none`: -1 and +1; `mean`: times the mean magnitude of the layer's latent weights that are not zero, as it
    was at the last `renew`. While `signed` is false the latent weights pass as they are.
    """

    scaled: Tensor
    factor: Tensor

    def __init__(self, scale: Scale = "none") -> None:
        super().__init__()
        self.signed = True
        self.register_buffer("scaled", torch.tensor(scale == "mean"))
        # It follows from the latent weights, and no state holds it.
        self.register_buffer("factor", torch.tensor(1.0), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the effective weight, in the shape of the latent one."""
        return SignThrough.apply(latent, self.factor) if self.signed else latent  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def renew(self, latent: Tensor) -> None:
        """Compute the factor anew from the latent weights."""
        mean = latent.abs().sum() / latent.count_nonzero().clamp_min(1)
        self.factor.copy_(torch.where(self.scaled, mean, 1.0))


class Binary(Around):
    """Compute with the signs of the weights that an inner sparsifier trains and masks.

    Latent weights are clipped to [-1, 1] after every step; where scores are trained instead, nothing is. latent: what
    ships computes with signs and holds the latent weights, for a phase that goes on from there, instead of a plain
    network of -1, 0 and +1. Raises ConfigError.
    """

    averaged: Averaged = "trainable"

    def __init__(self, inner: Sparsifier, *, scale: Scale = "none", latent: bool = False) -> None:
        super().__init__(inner)
        check_scale(scale)
        self._scale: Scale = scale
        self._latent = latent
        self._clipped: tuple[Target, ...] = ()

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Let the inner sparsifier take hold, then take the sign of what it makes of every kernel."""
        super().attach(model, draws, horizon)
        self._clipped = tuple(
            layer for layer in self._layers if not parametrize.is_parametrized(layer.module, "weight")
        )
        for layer in self._layers:
            take_signs(layer, self._scale)
        self._clip()
        self._renew()

    def refresh(self) -> None:
        """Refresh the inner sparsifier, and the factors of the signs."""
        super().refresh()
        self._renew()

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Let the inner sparsifier act, and clip the latent weights."""
        super().after_step(step, optimizer)
        self._clip()
        self._renew()

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Let the inner sparsifier act, which may change what lives."""
        super().after_epoch(epoch, metrics)
        self._renew()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Give the inner sparsifier its state back; the factors follow from the weights."""
        super().load_state_dict(state)
        self._renew()

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain network of signs, or one that takes the signs of the latent weights it holds."""
        plain = super().finalize(model)
        if not self._latent:
            return plain
        with unsigned(model):
            latents = {layer.name: layer.weight.detach().clone() for layer in targets(model)}
        module = copy.deepcopy(plain.module)
        for layer in targets(module):
            masked = torch.where(plain.masks[layer.name], latents[layer.name], 0.0)
            take_signs(layer, self._scale)
            with torch.no_grad():
                layer.parameter.copy_(masked)
        renew(targets(module))
        return replace(plain, module=module.eval(), twin=module, kind="restructured", form=LATENT_SIGNS)

    def _renew(self) -> None:
        if self._scale != "none":
            renew(self._layers)

    @torch.no_grad()
    def _clip(self) -> None:
        for layer in self._clipped:
            layer.parameter.clamp_(-1.0, 1.0)


def take_signs(layer: Target, scale: Scale = "none") -> None:
    """Take the sign of what a layer computes with, after whatever parametrizations it has."""
    signs = Signs(scale).to(layer.parameter.device, layer.parameter.dtype)
    parametrize.register_parametrization(layer.module, "weight", signs)


@torch.no_grad()
def renew(layers: Sequence[Target]) -> None:
    """Compute the factors of all signs anew from what their layers hold before them: once a step, never in forward."""
    for layer in layers:
        chain = cast("nn.ModuleList", layer.module.parametrizations["weight"])  # type: ignore[union-attr,index]
        latent: Tensor = layer.parameter
        for each in chain:
            if isinstance(each, Signs):
                each.renew(latent)
                break
            latent = each(latent)


def check_scale(scale: str) -> None:
    """Raise ConfigError for a scale that no name means."""
    if scale not in ("none", "mean"):
        raise ConfigError(
            "method.binary_scale", expected="none or mean", got=repr(scale), remedy="write none, as published"
        )


@contextmanager
def unsigned(model: nn.Module) -> Generator[None]:
    """Let every kernel be read before its sign is taken."""
    signs = [module for module in model.modules() if isinstance(module, Signs)]
    for each in signs:
        each.signed = False
    try:
        yield
    finally:
        for each in signs:
            each.signed = True


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that takes the signs of its stored latent weights, in eval mode."""
    signed = [layer for layer in targets(model) if latent_name(layer) in tensors]
    for layer in signed:
        take_signs(layer)
    model.load_state_dict(dict(tensors))
    renew(signed)
    return model.eval()


def load_latents(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load stored latent weights into the dense network, as its weights."""
    model.load_state_dict(under_dense_names(model, tensors))


def under_dense_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return stored tensors with latent weights under the dense network's names; plain ones as they are."""
    plain = dict(tensors)
    for layer in targets(model):
        if latent_name(layer) in plain:
            plain[layer.name] = plain.pop(latent_name(layer))
            plain.pop(f"{_path(layer)}parametrizations.weight.0.scaled", None)
    return plain


def latent_name(layer: Target) -> str:
    """Return the key of a layer's latent weights in a stored network."""
    return f"{_path(layer)}parametrizations.weight.original"


def _path(layer: Target) -> str:
    return layer.name.removesuffix("weight")
