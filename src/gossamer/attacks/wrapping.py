"""How does an attack sit on another? It goes the other's steps; an attack that has none is one step as a whole."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.stepwise import Rows, StepwiseAttack, attack_batch
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Model


@dataclass(frozen=True, kw_only=True)
class OneStep:
    """Any attack as a stepwise one: a single attempt of a single step."""

    attack: Attack

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do."""
        return threat_of(self.attack)

    def attempts(self, classes: int) -> int:
        """Return 1."""
        return 1

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows at the clean images."""
        none = torch.zeros_like(y, dtype=torch.bool)
        return {"best": x.clone(), "hit": none, "over": none}

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows after the whole attack."""
        with torch.enable_grad():
            best = self.attack(model, x, y, draws=draws).detach().to(x)
        hit = model(best).argmax(dim=1) != y
        threat = getattr(self.attack, "threat", None)
        if isinstance(threat, ThreatModel):
            hit = hit & ~threat.violates(best, x)
        return {"best": best, "hit": hit, "over": torch.ones_like(hit)}


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """An attack on top of another, step by step; what a wrapper changes it overrides."""

    attack: Attack

    @property
    def threat(self) -> ThreatModel:
        """What the attacker may do: as the attack inside says."""
        return threat_of(self.attack)

    @property
    def needs_module(self) -> bool:
        """Whether the attack inside works on the module itself, not on a folded copy or another callable."""
        return bool(getattr(self.attack, "needs_module", False))

    @property
    def inner(self) -> StepwiseAttack:
        """The attack inside, as a stepwise one."""
        return as_stepwise(self.attack)

    def attempts(self, classes: int) -> int:
        """Return the attempts of the attack inside."""
        return self.inner.attempts(classes)

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        """Return rows as the attack inside begins them."""
        return self.inner.begin(x, y, clean, attempt, draws)

    def advance(self, model: Model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        """Return rows as the attack inside advances them."""
        return self.inner.advance(model, x, y, rows, draws)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        return attack_batch(self, model, x, y, draws)


def as_stepwise(attack: Attack) -> StepwiseAttack:
    """Return the attack itself where it goes step by step, else the attack as one step."""
    return attack if isinstance(attack, StepwiseAttack) else OneStep(attack=attack)


def threat_of(attack: Attack) -> ThreatModel:
    """Return the threat an attack works under; raises AttributeError where it names none."""
    return cast("ThreatModel", attack.threat)  # pyright: ignore[reportAttributeAccessIssue]
