"""RSR (Rakin et al., 2019): trainable channel-wise weight noise and a lasso under attack, then a cut by threshold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.methods.cut import Cut, FromNoisy
from gossamer.methods.natural_start import NATURAL, after_natural_epochs, check_natural_epochs
from gossamer.objectives.penalties import L1
from gossamer.sparsity import HeldMask, NoSparsifier, Sparsifier
from gossamer.sparsity.noisy_weights import Grain, NoisyWeights, Spread, check_noise
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class RSR:
    """Train with noise and lasso, cut, and fine-tune where asked for. Each part can be left out, for ablations.

    noise: what shares a trainable alpha, `none` for no noise; alpha: its first value; spread: whether eta has the
    standard deviation of `all` weights of a layer or of those `kept`. strength: of the lasso, 0 for none (published:
    1e-5 for ResNet-18 and VGG-16, 5e-5 for ResNet-20). density: kept by the cut, the largest of the whole network; or
    threshold: the least magnitude kept (default 1e-5, 0 cuts nothing). natural_epochs: on clean images first, None for
    the published 5 of 160. finetune_epochs: under the mask, noise on survivors, no lasso; finetune_lr: share of the
    recipe's rate. The published objective is `weighted` with labels predicted by the network.
    """

    noise: Literal["none", "layer", "channel", "element"] = "channel"
    alpha: float = 0.25
    spread: Spread = "all"
    strength: float = 1e-5
    density: float | None = None
    threshold: float | None = None
    natural_epochs: int | None = None
    finetune_epochs: int = 0
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        if self.noise != "none":
            check_noise(self.noise, self.alpha, self.spread)
        self._lasso()
        self._cut()
        check_natural_epochs(self.natural_epochs)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return Nesterov SGD with lr 0.1, momentum 0.9 and decay 3e-4: PNI's, as RSR's is not stated."""
        return OptimizerSpec(weight_decay=3e-4, nesterov=True)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return natural epochs where there are any, training, and the cut; raises ConfigError."""
        natural = round(base.epochs / 32) if self.natural_epochs is None else self.natural_epochs
        train = replace(base, sparsifier=self._sparsifier(NoSparsifier))
        if self.strength:
            train = replace(train, penalties=(*base.penalties, self._lasso()))
        phases = after_natural_epochs(train, natural, FromNoisy(f"{NATURAL}.end"))
        cut = self._cut()
        if not cut.cuts:
            return phases
        held = self._sparsifier(partial(HeldMask, contract=cut.contract))
        return (*phases, cut.phase(base, f"{train.name}.end", held))

    def _sparsifier(self, inner: Callable[[], Sparsifier]) -> Callable[[], Sparsifier]:
        # Of what the noise alone is, and not of this method, so that training before the cut is the same for every cut.
        if self.noise == "none":
            return inner
        return partial(_noisy, inner, self.noise, self.alpha, self.spread)

    def _lasso(self) -> L1:
        return L1(strength=self.strength)

    def _cut(self) -> Cut:
        return Cut(density=self.density, threshold=self.threshold, epochs=self.finetune_epochs, lr=self.finetune_lr)


def _noisy(inner: Callable[[], Sparsifier], grain: Grain, start: float, spread: Spread) -> Sparsifier:
    return NoisyWeights(inner(), grain=grain, start=start, spread=spread)
