"""What a sparsifier promises the training loop, and what leaves it in the end."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.masks import Masks

Kind = Literal["same-keys", "restructured", "stochastic"]
BudgetContract = Literal["exact", "at-most", "reported"]
Averaged = Literal["effective", "trainable"]

Numbers: TypeAlias = Mapping[str, float]
Recall: TypeAlias = Callable[[str, Callable[[], Numbers]], Numbers]


def measured_now(name: str, measure: Callable[[], Numbers]) -> Numbers:
    """Return what is measured now: nothing is kept."""
    del name
    return measure()


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """What lies ahead when a sparsifier takes hold.

    epochs: of the phase; steps_per_epoch: in it; image_shape: (C, H, W), None where the owner of the loop did not say;
    recall: gives the numbers that the run keeps under a name, measured where it keeps none yet. What is measured comes
    out otherwise each time: whoever chooses by it asks here, so that a run that goes on chooses as it did.
    """

    epochs: int
    steps_per_epoch: int
    image_shape: tuple[int, int, int] | None = None
    recall: Recall = measured_now

    @property
    def steps(self) -> int:
        """All steps of the phase."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Finalised:
    """A plain copy of a trained network, the only thing that evaluation, files and export see.

    module: no parametrizations, real zeros; twin: its noise-free form (itself unless stochastic); masks: the
    weights that ship; dense_weights: prunable weights of the dense parent; kind: `same-keys` loads strictly
    into the dense network; form: how `gossamer.sparsity.forms` builds the module again from its tensors.
    """

    module: nn.Module
    twin: nn.Module
    masks: Masks
    dense_weights: int
    kind: Kind
    form: str = "dense"

    @property
    def density(self) -> float:
        """Nonzeros of what ships over weights of the dense parent."""
        return self.masks.kept / self.dense_weights


class Sparsifier(Protocol):
    """Decides, while a network trains, which of its weights live.

    contract: how the density asked for binds; averaged: what an average of weights takes in, the effective weights
    under the current mask or, where scores or signs are trained, the trainable tensors themselves.
    """

    contract: BudgetContract
    averaged: Averaged

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Take hold of a model, before optimiser, memory format, averages and compilation.

        May freeze what does not learn (`requires_grad`). horizon: None where the owner of the loop did not say;
        a sparsifier that needs it raises ConfigError then.
        """
        ...

    def undecayed(self) -> Collection[nn.Parameter]:
        """Return the trainable tensors that weight decay must leave alone."""
        ...

    def refresh(self) -> None:
        """Bring what derives from trainable tensors, such as masks from scores, up to date with them."""
        ...

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return a term to add to the loss, or None."""
        ...

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Act on dense gradients, before clipping and the optimiser's step."""
        ...

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Act on weights and optimiser state after the step."""
        ...

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Act on what an epoch showed."""
        ...

    def due(self, done: int) -> bool:
        """Return whether what happens only now and then, such as a rewiring, happens once `done` steps are done.

        In `after_step`, or in the `after_epoch` that follows. What every step does is not told.
        """
        ...

    def measures(self) -> Mapping[str, float]:
        """Return what the sparsifier counted, for the metrics log; counters of one epoch start anew."""
        ...

    def masks(self) -> Masks:
        """Return the weights that live now."""
        ...

    def finalize(self, model: nn.Module) -> Finalised:
        """Return a plain, sparse copy of the model."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is not in the model and must survive a kill."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave, after `attach`."""
        ...
