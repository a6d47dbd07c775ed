"""A sparsifier around another: it changes how weights are read or stepped, the inner one says which of them live."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from gossamer.seeding import Draws
from gossamer.sparsity.masks import Masks
from gossamer.sparsity.none import NoSparsifier
from gossamer.sparsity.protocol import BudgetContract, Finalised, Horizon, Sparsifier


class Around(NoSparsifier):
    """Hand everything on to the inner sparsifier; subclasses override what they do beside it."""

    def __init__(self, inner: Sparsifier) -> None:
        super().__init__()
        self._inner = inner
        self.contract: BudgetContract = inner.contract

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Let the inner sparsifier take hold, and remember the layers."""
        super().attach(model, draws, horizon)
        self._inner.attach(model, draws, horizon)

    def undecayed(self) -> Collection[nn.Parameter]:
        """Return what the inner sparsifier keeps from decay."""
        return self._inner.undecayed()

    def refresh(self) -> None:
        """Refresh the inner sparsifier."""
        self._inner.refresh()

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return the inner sparsifier's penalty."""
        return self._inner.penalty(model)

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Let the inner sparsifier act."""
        self._inner.before_step(step, optimizer)

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """Let the inner sparsifier act."""
        self._inner.after_step(step, optimizer)

    def after_epoch(self, epoch: int, metrics: Mapping[str, float | None]) -> None:
        """Let the inner sparsifier act."""
        self._inner.after_epoch(epoch, metrics)

    def due(self, done: int) -> bool:
        """Return whether the inner sparsifier has something to do that other steps have not."""
        return self._inner.due(done)

    def measures(self) -> Mapping[str, float]:
        """Return what the inner sparsifier counted."""
        return self._inner.measures()

    def masks(self) -> Masks:
        """Return the inner sparsifier's masks."""
        return self._inner.masks()

    def finalize(self, model: nn.Module) -> Finalised:
        """Return what the inner sparsifier makes of the model."""
        return self._inner.finalize(model)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the inner sparsifier's state."""
        return self._inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Give the inner sparsifier its state back."""
        self._inner.load_state_dict(state)
