"""How a training step gets its adversarial inputs: the objective's craft, on the fastest model that is allowed."""

from collections.abc import Callable

from torch import Tensor, nn

from gossamer.attacks.crafting import BatchNormMode, crafting
from gossamer.seeding import Draws
from gossamer.training.devices import Place
from gossamer.types import Attack, Batch, Objective, State


class Crafter:
    """Crafts with batch norm as the recipe says (`eval`, `batch` or `train`).

    With `eval` and `fast`, crafting runs on a frozen copy whose batch norms are folded into its convolutions,
    refreshed once per batch: equal to the model but for rounding, and about a third cheaper per step. Holds no
    reference to the model.
    """

    def __init__(self, model: nn.Module, place: Place, batch_norm: BatchNormMode, *, fast: bool = True) -> None:
        self._place = place
        self._batch_norm: BatchNormMode = batch_norm
        self._surrogate = place.surrogate(model) if fast and batch_norm == "eval" else None
        self._fast_call = None if self._surrogate is None else place.compiled(self._surrogate)

    def fits(self, model: nn.Module, batch_norm: BatchNormMode) -> bool:
        """Return whether this crafter still serves the model."""
        return self._batch_norm == batch_norm and (self._surrogate is None or self._surrogate.matches(model))

    def __call__(
        self,
        objective: Objective,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
        network: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return x_adv: (N, C, H, W) in [0, 1], without a graph; network: the model compiled, where it is."""
        if attack is None:
            return objective.craft(model, batch, attack, state, draws=draws)
        with self._place.autocast():
            if self._surrogate is not None and self._fast_call is not None:
                self._surrogate.refresh(model)
                return objective.craft(self._fast_call, batch, attack, state, draws=draws)  # pyright: ignore[reportArgumentType]
            with crafting(model, self._batch_norm), self._place.synchronised(model):
                return objective.craft(network or model, batch, attack, state, draws=draws)  # pyright: ignore[reportArgumentType]
