"""What methods with a `binary` option share: phases over latent weights, and BinaryConnect's published optimiser."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from gossamer.errors import ConfigError
from gossamer.sparsity import Sparsifier
from gossamer.sparsity.binary_weights import Binary, Scale, check_scale, load_latents
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase
from gossamer.training.scene import Scene

# Liu et al., NeurIPS 2022; decay would pull latent weights, whose size means nothing, away from their bounds.
BINARY_OPTIMIZER = OptimizerSpec(kind="adam", lr=5e-4, weight_decay=0.0)


@dataclass(frozen=True)
class FromLatents:
    """Start from the latent weights of a named state; a state of plain weights loads as it is."""

    name: str

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Load the state; raises RunError where no phase gave it."""
        load_latents(model, scene.state(self.name))


def binarised(phase: Phase, scale: Scale = "none", *, latent: bool = False) -> Phase:
    """Return a phase that computes with the signs of its weights; latent: it hands its latent weights on."""
    return replace(phase, sparsifier=partial(_binary, phase.sparsifier, scale, latent=latent))


def check_binary(scale: str, *, binary: bool) -> None:
    """Raise ConfigError for a scale that no name means, or one without binary weights."""
    check_scale(scale)
    if scale != "none" and not binary:
        raise ConfigError(
            "method.binary_scale", expected="binary: true beside it", got="binary: false", remedy="write binary: true"
        )


def _binary(make: Callable[[], Sparsifier], scale: Scale, *, latent: bool) -> Binary:
    return Binary(make(), scale=scale, latent=latent)
