"""MART (Wang et al., ICLR 2020): adversarial training that weighs misclassified images more."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import best_other_class, cross_entropy, kl
from gossamer.objectives.checks import check_weight
from gossamer.objectives.clean_pass import clean_pass
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Mart:
    """mean BCE(p(x_adv), y) + beta * mean KL(p(x) || p(x_adv)) (1 - p_y(x)), with gradients through both.

    BCE = -log p_y - log(1 - max_{k != y} p_k), section 3.3 of the paper; 1.0001, 1e-12 and 1.0000001 keep it
    finite as the authors' code does. clean_pass: one more clean forward, first, that moves batch-norm statistics alone.
    """

    beta: float = 6.0
    clean_pass: bool = False

    def __post_init__(self) -> None:
        check_weight("objective.beta", self.beta, "write 6, or 5 as published for ResNet-18")

    def default_attack(self, threat: ThreatModel, *, steps: int = 10, step: StepRule = QUARTER) -> PGD:
        """Return PGD-10 on the cross-entropy from x + 0.001 N(0, 1), in steps of eps/4 (published: 0.007 at 0.031)."""
        return PGD(threat=threat, steps=steps, step=step, start=GaussianStart(0.001))

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
        return attack_inputs("mart", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the loss; parts: adversarial, the mean boosted cross-entropy; consistency, the weighted KL."""
        if self.clean_pass:
            clean_pass(model, batch.x)
        clean, attacked = model(batch.x), model(x_adv)
        boosted = boosted_cross_entropy(attacked, batch.y).mean()
        doubt = 1.0000001 - clean.softmax(dim=1).gather(1, batch.y[:, None])[:, 0]
        consistency = (kl(clean, attacked) * doubt).mean()
        return Loss(
            total=boosted + self.beta * consistency,
            parts={"adversarial": boosted.detach(), "consistency": consistency.detach()},
            logits={"natural": clean.detach(), "adversarial": attacked.detach()},
        )


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log p_y - log(1.0001 - max_{k != y} p_k + 1e-12): (N,), from logits: (N, K), y: (N,)."""
    rival = logits.softmax(dim=1).gather(1, best_other_class(logits, y)[:, None])[:, 0]
    return cross_entropy(logits, y) - torch.log(1.0001 - rival + 1e-12)
