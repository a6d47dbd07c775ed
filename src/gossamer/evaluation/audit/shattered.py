"""Which layers stop the gradient, and what can stand in for their slope? Found by calling each of them by itself."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.errors import ConfigError

LITTLE_SLOPE = 0.1
"""Share of inputs with a gradient at which a layer counts as one without: half of a ReLU's have one, a tenth of a
sparse one's."""

MUCH_CHANGE = 0.2
"""Share of outputs that change, when noise as large as the input's own spread is added, for a layer to matter."""

PROBE_VALUES = 200_000
"""Values of a layer's input from which a stand-in is fitted, at most."""


@dataclass(frozen=True, kw_only=True)
class Shattered:
    """A layer whose own gradient is zero, missing or not finite while its output changes.

    name: in `named_modules()`; backward: a fitted stand-in, None for the identity; replaceable: one of them fits.
    """

    name: str
    backward: nn.Module | None = None
    replaceable: bool = True


def find_shattered(model: nn.Module, x: Tensor) -> tuple[Shattered, ...]:
    """Return the shattered layers of a model at x: (P, C, H, W), the innermost of nested ones."""
    met = _meetings(model, x)
    found = [name for name, (given, _) in met.items() if _is_shattered(model.get_submodule(name), given)]
    inner = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    return tuple(_with_stand_in(name, *met[name]) for name in inner)


def named_layers(model: nn.Module, x: Tensor, names: tuple[str, ...]) -> tuple[Shattered, ...]:
    """Return the layers of these names as if they were shattered; raises ConfigError for an unknown one."""
    met = _meetings(model, x)
    unknown = [name for name in names if name not in met]
    if unknown:
        raise ConfigError(
            "layers",
            expected=f"layers of one tensor in and one out: {', '.join(met)}",
            got=", ".join(unknown),
            remedy="write names out of model.named_modules()",
        )
    return tuple(_with_stand_in(name, *met[name]) for name in names)


def _meetings(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, by layer, the input and output of its first call."""
    met: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [module.register_forward_hook(partial(_note, met, name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return met


def _note(met: dict[str, tuple[Tensor, Tensor]], name: str, layer: nn.Module, given: Any, out: Any) -> None:  # noqa: ARG001
    tensors = len(given) == 1 and isinstance(given[0], Tensor) and isinstance(out, Tensor)
    if name not in met and tensors and given[0].is_floating_point() and out.is_floating_point():
        met[name] = (given[0].detach().clone(), out.detach().clone())


def _is_shattered(layer: nn.Module, given: Tensor) -> bool:
    leaf = given.clone().requires_grad_(True)
    spread = float(given.std()) if given.numel() > 1 else 0.0
    generator = torch.Generator(device=given.device).manual_seed(0)
    noise = torch.randn(given.shape, generator=generator, device=given.device, dtype=given.dtype)
    with torch.enable_grad():
        out = layer(leaf)
    with torch.no_grad():
        changed = (layer(given + spread * noise) != layer(given)).double().mean()
    return float(changed) >= MUCH_CHANGE and _has_no_slope(out, leaf, generator)


def _has_no_slope(out: Tensor, leaf: Tensor, generator: torch.Generator) -> bool:
    if not out.requires_grad:
        return True
    weight = torch.randn(out.shape, generator=generator, device=out.device, dtype=out.dtype)
    (gradient,) = torch.autograd.grad((out * weight).sum(), leaf, allow_unused=True)
    if gradient is None:  # pyright: ignore[reportUnnecessaryComparison] - unused inputs have none
        return True
    usable = (gradient != 0) & gradient.isfinite()
    return float(usable.double().mean()) <= LITTLE_SLOPE


def _with_stand_in(name: str, given: Tensor, out: Tensor) -> Shattered:
    if given.shape == out.shape:
        return Shattered(name=name)
    if given.dim() == out.dim() == 4 and given.shape[2:] == out.shape[2:]:
        return Shattered(name=name, backward=_fitted(given, out))
    return Shattered(name=name, replaceable=False)


def _fitted(given: Tensor, out: Tensor) -> nn.Module:
    """Return the 1x1 convolution that is nearest to the layer on its own inputs, by least squares."""
    kept = max(1, PROBE_VALUES // given.shape[1])
    inputs, outputs = (_pixels(images)[:kept].double().cpu() for images in (given, out))
    design = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    solved = torch.linalg.lstsq(design, outputs, driver="gelsd").solution.to(given.dtype)
    layer = nn.Conv2d(given.shape[1], out.shape[1], 1).to(given.device).requires_grad_(False)
    layer.load_state_dict({"weight": solved[:-1].T[:, :, None, None], "bias": solved[-1]})
    return layer


def _pixels(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])
