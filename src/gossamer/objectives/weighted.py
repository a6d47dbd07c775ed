"""A weighted sum of adversarial and clean cross-entropy, each from a forward of its own."""

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import cross_entropy
from gossamer.objectives.checks import check_share
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """a * mean CE(f(x_adv), y) + (1 - a) * mean CE(f(x), y), a = adversarial_weight.

    Two forwards, clean then adversarial, each with its own batch statistics and, in a noisy network, its own noise.
    Published with a = 0.5 (Rakin et al., 2019, eq. 8: the ensemble loss; Gui et al., NeurIPS 2019) and with a = 0.9
    (Marshall, 2020).
    """

    adversarial_weight: float = 0.5

    def __post_init__(self) -> None:
        check_share("objective.adversarial_weight", self.adversarial_weight, "write 0.5, as published, or 0.9")

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
        return attack_inputs("weighted", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the loss; parts: natural and adversarial, the cross-entropies before their weights."""
        clean, attacked = model(batch.x), model(x_adv)
        natural, adversarial = cross_entropy(clean, batch.y).mean(), cross_entropy(attacked, batch.y).mean()
        weight = self.adversarial_weight
        return Loss(
            total=weight * adversarial + (1 - weight) * natural,
            parts={"natural": natural.detach(), "adversarial": adversarial.detach()},
            logits={"natural": clean.detach(), "adversarial": attacked.detach()},
        )
