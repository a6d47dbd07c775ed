"""The cut after a training that made weights small: near-zero ones are set to zero, the others may train on."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_rate
from gossamer.sparsity import Sparsifier, targets
from gossamer.sparsity.masks import apply_masks
from gossamer.sparsity.noisy_weights import rebuild
from gossamer.sparsity.protocol import BudgetContract
from gossamer.sparsity.thresholding import check_cut, survivors
from gossamer.training.phases import Phase
from gossamer.training.scene import Scene


@dataclass(frozen=True)
class FromNoisy:
    """Start from a named state, with the noise of its weights where it has any."""

    name: str

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Load the state; raises RunError where no phase gave it."""
        rebuild(model, scene.state(self.name))


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Keep int(density * N) weights of the whole network by magnitude, or those of at least `threshold`.

    Neither: 1e-5; threshold 0 cuts nothing. epochs: of fine-tuning under the mask, at `lr` times the recipe's rate.
    Raises ConfigError.
    """

    density: float | None
    threshold: float | None
    epochs: int
    lr: float

    def __post_init__(self) -> None:
        check_cut(self.density, self.threshold)
        check_rate("method.finetune_lr", self.lr)
        if self.epochs < 0:
            raise ConfigError(
                "method.finetune_epochs", expected="at least 0", got=self.epochs, remedy="write 0 for none"
            )
        if self.epochs and not self.cuts:
            raise ConfigError(
                "method.finetune_epochs",
                expected="0 where nothing is cut",
                got=self.epochs,
                remedy="give a density, or a threshold above 0",
            )

    @property
    def cuts(self) -> bool:
        """Whether there is anything to do."""
        return self.threshold != 0

    @property
    def contract(self) -> BudgetContract:
        """A density is exact but for weights that are zero already; what a threshold leaves is reported."""
        return "reported" if self.density is None else "at-most"

    def phase(self, base: Phase, after: str, sparsifier: Callable[[], Sparsifier]) -> Phase:
        """Return the phase that cuts the state `after`; sparsifier: holds the mask."""
        cut = replace(
            base,
            name="prune",
            epochs=self.epochs,
            optimizer=base.optimizer.scaled(self.lr),
            start=CutFrom(name=after, density=self.density, threshold=self.threshold),
            sparsifier=sparsifier,
        )
        return cut if self.epochs else replace(cut, average=None, probes=(), monitors=tuple, select=None)


@dataclass(frozen=True, kw_only=True)
class CutFrom:
    """Start from a named state, its smallest weights set to zero."""

    name: str
    density: float | None
    threshold: float | None

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Load the state and cut it; raises RunError where no phase gave it."""
        rebuild(model, scene.state(self.name))
        apply_masks(model, survivors(targets(model), density=self.density, threshold=self.threshold))
