"""Do points crafted on one network fool another? An attack on a source; the attacked model is never asked."""

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from gossamer.attacks.crafting import crafting
from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.wrapping import threat_of
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Model


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Any attack on `source`, a network of the same classes, in eval mode and where it lies.

    The model it is called with judges, elsewhere: here it is neither called nor differentiated. Points are floats
    as the attack gave them, not rounded to 255 levels. The source comes back as it was.
    """

    attack: Attack
    source: nn.Module

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do: as the attack inside says."""
        return threat_of(self.attack)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        del model
        tensor = next(chain(self.source.parameters(), self.source.buffers()), x)
        # "batch" puts every buffer back, whatever a forward pass does to it.
        with crafting(self.source, "batch"), torch.enable_grad():
            self.source.eval()
            found = self.attack(self.source, x.to(tensor.device), y.to(tensor.device), draws=draws)
        return found.detach().to(x)
