"""How a training step gets its adversarial inputs: the objective's craft, on the fastest model that is allowed."""

from torch import Tensor, nn

from gossamer.attacks.crafting import BatchNormMode, crafting
from gossamer.models.folding import build_surrogate
from gossamer.seeding import Draws
from gossamer.training.devices import Place
from gossamer.types import Attack, Batch, Objective, State


class Crafter:
    """Crafts with batch norm as the recipe says (`eval`, `batch` or `train`).

    With `eval` and `fast`, crafting runs on a frozen copy whose batch norms are folded into its convolutions,
    refreshed once per batch: equal to the model but for rounding, and about a third cheaper per step.
    """

    def __init__(self, model: nn.Module, place: Place, batch_norm: BatchNormMode, *, fast: bool) -> None:
        self._model = model
        self._place = place
        self._batch_norm: BatchNormMode = batch_norm
        self._surrogate = build_surrogate(model) if fast and batch_norm == "eval" else None
        self._call = place.compiled(self._surrogate if self._surrogate is not None else model)

    def __call__(
        self, objective: Objective, batch: Batch, attack: Attack | None, state: State, *, draws: Draws
    ) -> Tensor:
        """Return x_adv: (N, C, H, W) in [0, 1], without a graph."""
        if attack is None:
            return objective.craft(self._model, batch, attack, state, draws=draws)
        with self._place.autocast():
            if self._surrogate is not None:
                self._surrogate.refresh(self._model)
                return objective.craft(self._call, batch, attack, state, draws=draws)  # pyright: ignore[reportArgumentType]
            with crafting(self._model, self._batch_norm):
                return objective.craft(self._call, batch, attack, state, draws=draws)  # pyright: ignore[reportArgumentType]
