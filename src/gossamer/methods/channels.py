"""Structured pruning: train, remove whole channels at once, fine-tune the smaller dense network that is left.

Which channels depend on each other, and how they are removed, is Torch-Pruning's (Fang et al., DepGraph, CVPR 2023).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.sparsity import Sparsifier, targets
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.slim import Slimmed
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase

if TYPE_CHECKING:
    from gossamer.training.scene import Scene

HALVINGS = 12


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Keep at most density * N weights, N of the dense network, by removing channels of the smallest group l2 norm.

    finetune_epochs: epochs of the second phase, None for the recipe's; finetune_lr: its learning rate as a share of the
    first phase's. all_layers: rank channels over the whole network instead of removing an equal share of each layer.
    """

    density: float
    all_layers: bool = False
    finetune_epochs: int | None = None
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.finetune_lr", self.finetune_lr)
        _library()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return dense training, and fine-tuning of the network with fewer channels."""
        slimming = Slimming(density=self.density, all_layers=self.all_layers)
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.finetune_lr),
            start=slimming,
            sparsifier=slimming.sparsifier,
        )
        return (replace(base, name="pretrain"), finetune)


class Slimming:
    """Starts from the pretrained network with channels removed; knows afterwards how large its parent was."""

    def __init__(self, *, density: float, all_layers: bool) -> None:
        self._density = density
        self._all_layers = all_layers
        self._parent = 0

    def __call__(self, model: nn.Module, scene: "Scene") -> None:
        """Remove channels of the model in place, until it keeps at most the density; raises ConfigError."""
        FromState("pretrain.end")(model, scene)
        self._parent = _count(model)
        example = scene.place.images(torch.zeros(1, *scene.data.image_shape, device=scene.place.device))
        _remove(model, example, self._share(model, example), all_layers=self._all_layers)

    def rehearse(self, model: nn.Module, image_shape: tuple[int, ...]) -> None:
        """Raise ConfigError where no network of such channels is small enough, or none fits together."""
        example = torch.zeros(1, *image_shape)
        # The shares that bisection tries while nothing fits.
        if not any(self._fits(model, example, 1 - 0.5**halvings) for halvings in range(1, HALVINGS + 1)):
            raise self._too_large()

    def sparsifier(self) -> Sparsifier:
        """Return what trains the slim network."""
        return Slimmed(self._parent)

    def _share(self, model: nn.Module, example: torch.Tensor) -> float:
        """Return the smallest share of channels to remove that meets the density, by bisection; raises ConfigError."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fits(model, example, middle) else (middle, high)
        if not self._fits(model, example, high):
            raise self._too_large()
        return high

    def _too_large(self) -> ConfigError:
        return ConfigError(
            "method.density",
            expected="a density that leaves a channel in every layer",
            got=self._density,
            remedy="raise it, or prune weights instead of channels",
        )

    def _fits(self, model: nn.Module, example: torch.Tensor, share: float) -> bool:
        trial = copy.deepcopy(model)
        _remove(trial, example, share, all_layers=self._all_layers)
        _refuse_broken(trial, example)
        return _count(trial) <= self._density * _count(model)


def _count(model: nn.Module) -> int:
    return sum(layer.size for layer in targets(model))


@torch.no_grad()
def _refuse_broken(model: nn.Module, example: torch.Tensor) -> None:
    try:
        model(example)
    except RuntimeError as error:
        raise ConfigError(
            "model",
            expected="a network whose channels can be removed in step with each other",
            got=f"one that no longer fits together ({error})",
            remedy="take one without padded shortcuts (resnet20 with shortcut: B), or prune weights instead",
        ) from error


def _remove(model: nn.Module, example: torch.Tensor, share: float, *, all_layers: bool) -> None:
    library: Any = _library()
    classifier = targets(model)[-1].module
    model.eval()
    pruner = library.pruner.BasePruner(
        model,
        example,
        importance=library.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=min(share, 1.0),
        # At least one channel of a layer is left by the library; more than this share is not taken from one layer.
        max_pruning_ratio=1.0,
        global_pruning=all_layers,
        ignored_layers=[classifier],
    )
    pruner.step()


def _library() -> Any:
    try:
        import torch_pruning  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "method channels",
            expected="Torch-Pruning",
            got="not installed",
            remedy="pip install 'gossamer[structured]'",
        ) from error
    return torch_pruning
