"""Averages of weights along training: exponential (EMA) or stochastic weight averaging (SWA)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.sparsity import Finalised, Sparsifier, finalise
from gossamer.sparsity.protocol import Averaged


@dataclass(frozen=True, kw_only=True)
class AverageSpec:
    """kind `ema`: every step, a <- decay * a + (1 - decay) * w; `swa`: the mean of the weights at each epoch's end.

    start: first epoch (0-based) that counts.
    """

    kind: Literal["ema", "swa"] = "ema"
    decay: float = 0.999
    start: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.decay < 1.0:
            raise ConfigError(
                "training.average.decay",
                expected="a share in (0, 1)",
                got=self.decay,
                remedy="write 0.999, or leave `average` out",
            )


class Average:
    """The running average of a network's effective weights, or of its trainable tensors.

    Averages of effective weights, under the names of the dense model, are dense where masks move, so the current masks
    are applied when the average is taken. Where scores or signs are trained, the average of the trainable tensors
    is what is finalised: an average of signs is no sign.
    """

    def __init__(self, spec: AverageSpec, averaged: Averaged = "effective") -> None:
        self._spec = spec
        self._averaged: Averaged = averaged
        self._weights: dict[str, Tensor] = {}
        self._count = 0

    def after_step(self, epoch: int, model: nn.Module) -> None:
        """Take in the weights of one step (EMA)."""
        if self._spec.kind == "ema" and epoch >= self._spec.start:
            self._mix(model, 1.0 - self._spec.decay)

    def after_epoch(self, epoch: int, model: nn.Module) -> None:
        """Take in the weights of one epoch (SWA)."""
        if self._spec.kind == "swa" and epoch >= self._spec.start:
            self._mix(model, 1.0 / (self._count + 1))

    def finalise(self, model: nn.Module, sparsifier: Sparsifier, batches: Callable[[], Iterable[Tensor]]) -> Finalised:
        """Return the averaged network: batch-norm statistics copied (EMA) or estimated anew over `batches` (SWA)."""
        if not self._weights:
            return sparsifier.finalize(model)
        averaged = (
            self._finalise_trainable(model, sparsifier)
            if self._averaged == "trainable"
            else self._finalise_effective(model, sparsifier)
        )
        if self._spec.kind == "swa":
            estimate_batch_norm(averaged.module, batches())
        return averaged

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights and how many went in."""
        return {**self._weights, "#count": torch.tensor(self._count)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self._weights = {name: value for name, value in state.items() if name != "#count"}
        self._count = int(state["#count"])

    def _finalise_effective(self, model: nn.Module, sparsifier: Sparsifier) -> Finalised:
        plain = sparsifier.finalize(model)
        with torch.no_grad():
            for name, parameter in plain.module.named_parameters():
                parameter.copy_(self._weights[name])
        whole = finalise(plain.module, plain.masks)
        return replace(whole, kind=plain.kind, form=plain.form, dense_weights=plain.dense_weights)

    def _finalise_trainable(self, model: nn.Module, sparsifier: Sparsifier) -> Finalised:
        current = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        try:
            _write(model, self._weights, sparsifier)
            return sparsifier.finalize(model)
        finally:
            _write(model, current, sparsifier)

    @torch.no_grad()
    def _mix(self, model: nn.Module, share: float) -> None:
        trainable = self._averaged == "trainable"
        current = dict(model.named_parameters()) if trainable else effective_parameters(model)
        if not self._weights:
            self._weights = {name: value.detach().clone() for name, value in current.items()}
        else:
            for name, value in current.items():
                average = self._weights[name] = _placed_like(self._weights[name], value)
                average.lerp_(value.detach(), share)
        self._count += 1


@torch.no_grad()
def _write(model: nn.Module, values: Mapping[str, Tensor], sparsifier: Sparsifier) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])
    sparsifier.refresh()


def _placed_like(stored: Tensor, tensor: Tensor) -> Tensor:
    """Return what a checkpoint stored on the device and in the memory format of a tensor: both decide bits."""
    if stored.device == tensor.device and stored.stride() == tensor.stride():
        return stored
    return torch.empty_like(tensor).copy_(stored)


def effective_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter as the forward pass sees it, under the names of the dense model."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        prefix = f"{path}." if path else ""
        for name, parameter in module.named_parameters(recurse=False):
            found[prefix + name] = parameter
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:  # type: ignore[union-attr]
                found[prefix + str(name)] = getattr(module, str(name))
    return found


@torch.no_grad()
def estimate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch-norm statistics to their mean over the batches, weighted by size (Izmailov et al., UAI 2018)."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    seen = 0
    for x in batches:
        seen += x.shape[0]
        for norm in norms:
            norm.momentum = x.shape[0] / seen
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
