"""Which label does an attack leave? Here the model's own prediction on the clean image, not the true one."""

from dataclasses import dataclass

from torch import Tensor

from gossamer.attacks.stepwise import Rows
from gossamer.attacks.wrapping import Wrapper
from gossamer.seeding import Draws
from gossamer.types import Model

KEY = "predicted_label"


@dataclass(frozen=True, kw_only=True)
class PredictedLabels(Wrapper):
    """Any attack that drives away from the clean prediction, so that no label leaks (Kurakin et al., ICLR 2017)."""

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows begun with the predictions as labels."""
        predicted = clean.argmax(dim=1)
        return {**self.inner.begin(x, predicted, clean, attempt, draws), KEY: predicted}

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows advanced with the predictions as labels."""
        predicted = rows[KEY]
        inside = {name: value for name, value in rows.items() if name != KEY}
        return {**self.inner.advance(model, x, predicted, inside, draws), KEY: predicted}
