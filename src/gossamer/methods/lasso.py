"""The lasso (Tibshirani, 1996) under the recipe's objective: weights shrink as they train, near-zero ones are cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gossamer.methods.cut import Cut
from gossamer.objectives.penalties import L1
from gossamer.sparsity import HeldMask
from gossamer.sparsity.thresholding import SoftThreshold
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Lasso:
    """Train under strength * sum |w|, cut, and fine-tune where asked for.

    density: kept by the cut, the largest weights of the whole network; or threshold: the least magnitude kept (default
    1e-5, 0 cuts nothing). proximal: shrink weights by lr * strength after each step instead of a term in the loss,
    which gives exact zeros. finetune_epochs: under the mask, without lasso; finetune_lr: share of the recipe's rate.
    """

    density: float | None = None
    threshold: float | None = None
    strength: float = 1e-5
    proximal: bool = False
    finetune_epochs: int = 0
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        L1(strength=self.strength)
        self._cut()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with lr 0.1 and momentum 0.9; the lasso takes the place of decay."""
        return OptimizerSpec(weight_decay=0.0)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return training under the lasso, and the cut."""
        cut = self._cut()
        if self.proximal:
            train = replace(base, sparsifier=partial(SoftThreshold, strength=self.strength))
        else:
            train = replace(base, penalties=(*base.penalties, L1(strength=self.strength)))
        if not cut.cuts:
            return (train,)
        return (train, cut.phase(base, f"{train.name}.end", partial(HeldMask, contract=cut.contract)))

    def _cut(self) -> Cut:
        return Cut(density=self.density, threshold=self.threshold, epochs=self.finetune_epochs, lr=self.finetune_lr)
