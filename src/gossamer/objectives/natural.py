"""Natural training: cross-entropy on clean images."""

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import cross_entropy
from gossamer.objectives.checks import check_label_smoothing
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Natural:
    """mean CE(f(x), y); label_smoothing: the share of each label spread over all classes. Raises ConfigError."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)

    def default_attack(
        self,
        threat: ThreatModel,
        *,
        steps: int = 10,
        step: StepRule = QUARTER,
    ) -> None:
        """Return None: nothing is attacked."""
        return

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return batch.x: (N, C, H, W)."""
        return batch.x

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W), the clean images."""
        logits = model(x_adv)
        total = cross_entropy(logits, batch.y, smoothing=self.label_smoothing).mean()
        return Loss(total=total, parts={"natural": total.detach()}, logits={"natural": logits.detach()})
