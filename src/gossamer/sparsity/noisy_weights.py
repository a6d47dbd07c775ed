"""Trainable noise on weights: every read of a kernel is W + alpha * eta with eta drawn anew, and training learns alpha.

Sources: parametric noise injection (He, Rakin & Fan, CVPR 2019), one alpha for each layer; channel-wise noise injection
on surviving weights alone once a network is pruned (Rakin et al., "Robust Sparse Regularization", 2019).
"""

import copy
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.around import Around
from gossamer.sparsity.finalize import plain_copy
from gossamer.sparsity.protocol import Averaged, Finalised, Horizon, Sparsifier
from gossamer.sparsity.targets import Target, targets

Grain: TypeAlias = Literal["layer", "channel", "element"]
Spread: TypeAlias = Literal["all", "kept"]
NOISY = "noisy"


class WeightNoise(nn.Module):
    """Parametrization W~ = W + alpha * eta, eta ~ N(0, std(W)^2) fresh at each read, 0 where W is 0.

    dL/dW = dL/dW~ and dL/dalpha = sum of dL/dW~ * eta over the weights that share it: neither eta nor its spread has a
    gradient. Draws are from torch's global generator, while `noisy`. alpha: broadcasts over the kernel; spread: std
    (n - 1) over `all` weights of the layer, zeros included, or over the `kept` ones.
    """

    pure = False
    kept_only: Tensor

    def __init__(self, alpha: Tensor, *, spread: Spread = "all") -> None:
        super().__init__()
        self.noisy = True
        self.alpha = nn.Parameter(alpha)
        self.register_buffer("kept_only", torch.tensor(spread == "kept", device=alpha.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the effective kernel, in the shape of the stored one."""
        if not self.noisy:
            return weight
        with torch.no_grad():
            alive = weight != 0
            # Drawn in the order of the shape, so that the memory format of the kernel does not decide which is where.
            drawn = torch.randn(weight.shape, dtype=weight.dtype, device=weight.device)
            eta = torch.where(alive, drawn * _deviation(weight, alive | ~self.kept_only), 0.0)
        return weight + self.alpha * eta


class NoisyWeights(Around):
    """Give every kernel trainable noise, and let the inner sparsifier act on the stored weights without it.

    grain: what shares an alpha; start: its first value; spread: as in WeightNoise. Noise that a kernel already has
    stays as it is, so that a phase goes on from the noisy state of an earlier one. Weight decay leaves alpha alone, and
    what ships keeps its noise; its twin has none. Raises ConfigError.
    """

    averaged: Averaged = "trainable"

    def __init__(
        self, inner: Sparsifier, *, grain: Grain = "channel", start: float = 0.25, spread: Spread = "all"
    ) -> None:
        super().__init__(inner)
        check_noise(grain, start, spread)
        self._grain: Grain = grain
        self._start = start
        self._spread: Spread = spread

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Let the inner sparsifier take hold of the weights, then register noise on every kernel without it."""
        with quiet(model):
            super().attach(model, draws, horizon)
        for layer in self._layers:
            if noise_of(layer) is None:
                alpha = layer.parameter.new_full(alpha_shape(layer.parameter, self._grain), self._start)
                add_noise(layer, WeightNoise(alpha, spread=self._spread))

    def undecayed(self) -> Collection[nn.Parameter]:
        """Return every alpha, and what the inner sparsifier keeps from decay."""
        return (*super().undecayed(), *(noise.alpha for noise in self._noises))

    def measures(self) -> Mapping[str, float]:
        """Return the mean of |alpha| over the network, and what the inner sparsifier counted."""
        alphas = torch.cat([noise.alpha.detach().abs().flatten() for noise in self._noises])
        return {**super().measures(), "noise": float(alphas.mean())}

    def finalize(self, model: nn.Module) -> Finalised:
        """Return the inner sparsifier's network with the noise on its weights; the twin is that network itself."""
        with quiet(model):
            plain = super().finalize(model)
        module = copy.deepcopy(plain.module)
        for shipped, trained in zip(targets(module), targets(model), strict=True):
            noise = noise_of(trained)
            assert noise is not None
            add_noise(shipped, copy.deepcopy(noise))
        return replace(plain, module=module.eval(), twin=plain.module, kind="stochastic", form=NOISY)

    @property
    def _noises(self) -> list[WeightNoise]:
        found = [noise_of(layer) for layer in self._layers]
        return [noise for noise in found if noise is not None]


def check_noise(grain: str, start: float, spread: str) -> None:
    """Raise ConfigError for noise that cannot be."""
    for field, value, choices in (("noise", grain, ("layer", "channel", "element")), ("spread", spread, SPREADS)):
        if value not in choices:
            expected = f"one of {', '.join(choices)}"
            raise ConfigError(f"method.{field}", expected=expected, got=repr(value), remedy="choose one of them")
    if not 0.0 <= start < float("inf"):
        raise ConfigError(
            "method.alpha", expected="a number of at least 0", got=start, remedy="write 0.25, as published"
        )


def alpha_shape(kernel: Tensor, grain: Grain) -> tuple[int, ...]:
    """Return the shape of alpha, which broadcasts over the kernel: one for each layer, output channel or weight."""
    if grain == "element":
        return tuple(kernel.shape)
    return (kernel.shape[0] if grain == "channel" else 1, *(1,) * (kernel.ndim - 1))


def add_noise(layer: Target, noise: WeightNoise) -> None:
    """Put noise on a plain kernel; draws nothing."""
    noisy, noise.noisy = noise.noisy, False
    parametrize.register_parametrization(layer.module, "weight", noise)
    noise.noisy = noisy


def noise_of(layer: Target) -> WeightNoise | None:
    """Return the noise on a kernel, None where it has none."""
    if not parametrize.is_parametrized(layer.module, "weight"):
        return None
    found = layer.module.parametrizations["weight"][0]  # type: ignore[union-attr,index]
    return found if isinstance(found, WeightNoise) else None


@contextmanager
def quiet(model: nn.Module) -> Generator[None]:
    """Switch the noise of all kernels off; inside, what is read are the stored weights."""
    noises = [module for module in model.modules() if isinstance(module, WeightNoise)]
    before = [noise.noisy for noise in noises]
    try:
        for noise in noises:
            noise.noisy = False
        yield
    finally:
        for noise, noisy in zip(noises, before, strict=True):
            noise.noisy = noisy


def rebuild(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the dense network with its stored tensors, and noise where they hold an alpha; in eval mode."""
    for layer in targets(model):
        path = layer.name.removesuffix("weight")
        alpha = tensors.get(f"{path}parametrizations.weight.0.alpha")
        if alpha is not None:
            add_noise(layer, WeightNoise(torch.empty_like(alpha, device=layer.parameter.device)))
    model.load_state_dict(dict(tensors))
    return model.eval()


def without_noise(model: nn.Module) -> nn.Module:
    """Return a plain copy of a noisy network that computes with its stored weights."""
    with quiet(model):
        return plain_copy(model)


def _deviation(weight: Tensor, counted: Tensor) -> Tensor:
    n = counted.sum()
    mean = torch.where(counted, weight, 0.0).sum() / n.clamp_min(1)
    return (torch.where(counted, weight - mean, 0.0).square().sum() / (n - 1).clamp_min(1)).sqrt()


SPREADS = ("all", "kept")
