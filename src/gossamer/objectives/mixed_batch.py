"""Mixed-batch adversarial training: half of each batch is attacked (Kurakin et al., ICLR 2017)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import cross_entropy
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """mean CE over a batch whose first half is adversarial, in one forward.

    Both halves share batch statistics and weigh the same (Ozdenizci & Legenstein, ICML 2021). An odd batch has
    one adversarial image more.
    """

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
        """Return (N, C, H, W): the first half attacked, the rest clean; raises ConfigError without an attack."""
        half = _adversarial_count(batch.y)
        first = attack_inputs(
            "mixed-batch", attack, model, batch.x[:half], batch.y[:half], draws=draws.select(torch.arange(half))
        )
        return torch.cat([first, batch.x[half:]])

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W); its parts are those of the two halves."""
        logits = model(x_adv)
        each = cross_entropy(logits, batch.y)
        half = _adversarial_count(batch.y)
        positions = torch.arange(len(each), device=each.device)
        rows = {"adversarial": positions[:half], "natural": positions[half:]}
        told = {name: where for name, where in rows.items() if len(where)}
        return Loss(
            total=each.mean(),
            parts={name: each[where].detach().mean() for name, where in told.items()},
            logits={name: logits[where].detach() for name, where in told.items()},
            rows=told,
        )


def _adversarial_count(y: Tensor) -> int:
    return (len(y) + 1) // 2
