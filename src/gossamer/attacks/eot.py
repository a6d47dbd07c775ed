"""How is a model attacked that draws noise? Through the mean of several passes: expectation over transformation."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from gossamer.attacks.checks import check_count
from gossamer.attacks.stepwise import Rows
from gossamer.attacks.wrapping import Wrapper
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.types import Model

MeanOf: TypeAlias = Literal["logits", "log-probabilities"]


@dataclass(frozen=True, kw_only=True)
class Expectation(Wrapper):
    """Any attack on the mean of `passes` passes through the model (Athalye et al., ICML 2018).

    mean_of: logits, or log-probabilities, whose cross-entropy is the mean of the passes' own. Memory and time grow
    with the passes. The noise is the model's: it draws it from wherever it draws it.

    Raises ConfigError for impossible fields.
    """

    passes: int = 20
    mean_of: MeanOf = "logits"

    def __post_init__(self) -> None:
        check_count("attack passes", self.passes)
        if self.mean_of not in get_args(MeanOf):
            raise ConfigError(
                "attack mean_of",
                expected=" or ".join(get_args(MeanOf)),
                got=repr(self.mean_of),
                remedy="write logits",
            )

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows advanced on the mean of the passes."""
        return self.inner.advance(self._averaged(model), x, y, rows, draws)

    def _averaged(self, model: Model) -> Model:
        def average(x: Tensor) -> Tensor:
            outputs = [model(x) for _ in range(self.passes)]
            if self.mean_of == "log-probabilities":
                outputs = [logits.log_softmax(dim=1) for logits in outputs]
            return torch.stack(outputs).mean(dim=0)

        return average
