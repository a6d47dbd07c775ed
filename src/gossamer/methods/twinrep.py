"""TwinRep (Li et al., AAAI 2023): train products of two tensors from scratch, cut once early, train on, fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from gossamer.errors import ConfigError
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.twin import FirstFactors, Structure, TwinRepresentation
from gossamer.training.monitors import Probe
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase
from gossamer.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class ProbeFrom(Probe):
    """A probe that is silent before an epoch (0-based), so that no network from before it can be selected."""

    start: int = 0

    def __call__(
        self, epoch: int, model: nn.Module, *, last: bool, seed: int, ranks: Ranks = ALONE
    ) -> dict[str, float | None]:
        """Return the measures of an epoch, or None under each name where it is not its turn."""
        if epoch < self.start:
            return dict.fromkeys([f"{self.part}/clean", *(f"{self.part}/{name}" for name in self.attacks)])
        return super().__call__(epoch, model, last=last, seed=seed, ranks=ranks)


@dataclass(frozen=True, kw_only=True)
class TwinRep:
    """One phase from scratch, with one cut over all layers.

    pruning_epoch: the epoch, counted from 1, at whose start the cut is made; None: a tenth of the training, as the
    released code's 10 of 100. structure: weights, or filters of convolutions, of which `density` is then the share.
    first: see `gossamer.sparsity.twin`; networks without batch norm need `he`.
    """

    density: float
    pruning_epoch: int | None = None
    structure: Structure = "weights"
    first: FirstFactors = "uniform"

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        if self.pruning_epoch is not None and self.pruning_epoch < 1:
            raise ConfigError(
                "method.pruning_epoch",
                expected="an epoch, counted from 1",
                got=self.pruning_epoch,
                remedy="leave it out for a tenth of the training",
            )

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD: lr 0.1, momentum 0.9, coupled decay 2e-4, as published, on both factors."""
        return OptimizerSpec(weight_decay=2e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under twin representation; raises ConfigError for a cut after its end."""
        epoch = self.pruning_epoch or max(1, round(base.epochs / 10))
        if epoch > base.epochs:
            raise ConfigError(
                "method.pruning_epoch",
                expected=f"an epoch of the training (1 to {base.epochs})",
                got=epoch,
                remedy="prune earlier, or train longer",
            )
        cut_after = epoch - 1
        sparsifier = partial(
            TwinRepresentation,
            density=self.density,
            cut_after=cut_after,
            structure=self.structure,
            first=self.first,
        )
        probes = [ProbeFrom(each.part, each.data, each.attacks, each.every, start=cut_after) for each in base.probes]
        return (replace(base, sparsifier=sparsifier, probes=probes),)
