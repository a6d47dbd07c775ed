"""Hard masks: weights chosen once by score, then held."""

from collections.abc import Mapping

from torch import Tensor, nn

from gossamer.seeding import Draws
from gossamer.sparsity.budgets import BudgetSpec, check_density, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.held_mask import HeldMask
from gossamer.sparsity.patterns import IRREGULAR, PatternSpec
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.protocol import Horizon
from gossamer.sparsity.scores import score, scoring
from gossamer.sparsity.work import settled


class HardMask(HeldMask):
    """Keep weights chosen once by score, over the whole network or layer by layer, and hold them.

    scope: `global` keeps int(density * N) of all; `layer` keeps what `budget` gives each layer (`uniform`,
    {name: adaptive, p: 0.1}, ...). pattern: in which shapes weights are kept (`gossamer.sparsity.patterns`).
    score: as in `gossamer.sparsity.scores`.
    """

    def __init__(
        self,
        *,
        density: float,
        score: str = "magnitude",
        scope: str = "global",
        budget: BudgetSpec = "uniform",
        pattern: PatternSpec = "irregular",
    ) -> None:
        check_scope(scope, budget)
        self._pattern = make_pattern(pattern)
        super().__init__(contract="exact" if self._pattern == IRREGULAR else "at-most")
        self.density = check_density(density, "method.density")
        scoring(score)
        self._score = score
        self._scope = scope
        self._budget = make_budget(budget)

    def attach(self, model: nn.Module, draws: Draws, horizon: Horizon | None = None) -> None:
        """Choose the masks from the weights as they stand, and set the rest to zero."""
        self._budget = settled(self._budget, model, horizon)
        super().attach(model, draws, horizon)

    def _choose(self, draws: Draws) -> Mapping[str, Tensor]:
        scores = score(self._score, self._layers, draws)
        return self._pattern(scores, self.density, None if self._scope == "global" else self._budget)
