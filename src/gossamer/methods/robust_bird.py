"""Robust Bird: draw a ticket early in a cheap training, as soon as its mask has settled, and train it under attack.

Source: Chen et al., "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training", ICLR 2022, and
its released code; the early stop is that of You et al., "Drawing Early-Bird Tickets", ICLR 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs
from gossamer.methods.drawing import Draw, drawn_by
from gossamer.methods.rewinding import Rewind
from gossamer.methods.stretches import beginning
from gossamer.sparsity import HeldMask
from gossamer.sparsity.settling import DISTANCE, SettlingMask
from gossamer.training.monitors import GO, Metrics, Verdict
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase, epoch_state

DRAW = "draw"


class Settled:
    """Stop once the masks of the last epochs lie within `threshold` of the newest; needs a `SettlingMask`."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def __call__(self, epoch: int, metrics: Metrics) -> Verdict:
        """Return stop at the first epoch whose distance is at most the threshold."""
        distance = metrics.get(f"sparsifier/{DISTANCE}")
        if distance is None or distance > self._threshold:
            return GO
        return Verdict("stop", None, f"the mask has settled: {distance:.2%} of the weights still change sides")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the masks are the sparsifier's."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class RobustBird:
    """Keep int(density * N) weights of the whole network, those of largest magnitude once their choice has settled.

    draw: the training that shows them: `natural`, clean images, as published; `fgsm`, one attack step; or the recipe's.
    It stops after the first epoch whose mask is at most `threshold` away from each of the window - 1 masks before it,
    at the latest after `draw_epochs`, None for the recipe's. The masked network then trains the whole recipe from its
    `early` weights (as published), or from the `initial` ones, as a lottery ticket does.
    """

    density: float
    draw: Draw = "natural"
    window: int = 5
    threshold: float = 0.08
    draw_epochs: int | None = None
    weights: Literal["early", "initial"] = "early"

    def __post_init__(self) -> None:
        self._settling()
        check_epochs("method.draw_epochs", self.draw_epochs)
        if not 0.0 <= self.threshold < 1.0:
            raise ConfigError(
                "method.threshold",
                expected="a share of the weights in [0, 1)",
                got=self.threshold,
                remedy="write 0.08, as published",
            )

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD: lr 0.1, momentum 0.9, coupled decay 5e-4, as published."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the dense draw, and the whole recipe under the mask it found; raises ConfigError."""
        start = Rewind(
            weights=f"{DRAW}.end" if self.weights == "early" else epoch_state(DRAW, 0),
            trained=f"{DRAW}.end",
            density=self.density,
            choose="magnitude",
        )
        return (self._draw(base), replace(base, name="train", start=start, sparsifier=HeldMask))

    def _draw(self, base: Phase) -> Phase:
        epochs = self.draw_epochs or base.epochs
        if epochs > base.epochs:
            raise ConfigError(
                "method.draw_epochs",
                expected=f"at most training.epochs ({base.epochs}), whose learning rates it begins with",
                got=epochs,
                remedy="leave it out",
            )
        return replace(
            beginning(drawn_by(base, self.draw), epochs),
            name=DRAW,
            sparsifier=self._settling,
            publish=(0,) if self.weights == "initial" else (),
            probes=(),
            monitors=self._monitors,
        )

    def _settling(self) -> SettlingMask:
        return SettlingMask(density=self.density, window=self.window)

    def _monitors(self) -> list[Settled]:
        return [Settled(self.threshold)]
