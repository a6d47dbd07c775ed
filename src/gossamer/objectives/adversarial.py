"""Standard adversarial training (Madry et al., ICLR 2018): cross-entropy on adversarial images alone."""

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import cross_entropy
from gossamer.objectives.checks import check_label_smoothing
from gossamer.objectives.clean_pass import clean_pass
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """mean CE(f(x_adv), y).

    clean_pass: a clean forward in training mode first, whose batch statistics move the running ones (Sehwag et al.,
    NeurIPS 2020; Zhao & Wressnegger, ICLR 2023, in their code); its accuracy is reported. label_smoothing: the share
    of each label that the loss spreads over all classes; attacks keep the label. Raises ConfigError.
    """

    clean_pass: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_label_smoothing(self.label_smoothing)

    def default_attack(self, threat: ThreatModel, *, steps: int = 10, step: StepRule = QUARTER) -> PGD:
        """Return PGD-10 on the cross-entropy from a random start, in steps of eps/4 (2/255 at eps 8/255)."""
        return PGD(threat=threat, steps=steps, step=step)

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return x_adv: (N, C, H, W), every image attacked; raises ConfigError without an attack."""
        return attack_inputs("adversarial", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W)."""
        seen = {"natural": clean_pass(model, batch.x)} if self.clean_pass else {}
        logits = model(x_adv)
        total = cross_entropy(logits, batch.y, smoothing=self.label_smoothing).mean()
        return Loss(total=total, parts={"adversarial": total.detach()}, logits={**seen, "adversarial": logits.detach()})
