"""What is left when an attacker may choose among attacks and threats? Only what survives all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.wrapping import threat_of
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Attack, Model


@dataclass(frozen=True)
class ThreatUnion:
    """All images that one of several threats allows: the union of their balls, in the box."""

    threats: tuple[ThreatModel, ...]

    @property
    def norm(self) -> str:
        """A word, as there is no one norm."""
        return "union"

    @property
    def eps(self) -> float:
        """0: every ball has a radius of its own."""
        return 0.0

    def __str__(self) -> str:
        return " or ".join(str(threat) for threat in self.threats)

    def violates(self, x_adv: Tensor, x: Tensor, tolerance: float = 1e-6) -> Tensor:
        """Return where x_adv lies outside of every threat by more than `tolerance`, or is not a number: (N,) bool."""
        return torch.stack([threat.violates(x_adv, x, tolerance) for threat in self.threats]).all(dim=0)


@dataclass(frozen=True, kw_only=True)
class WorstOf:
    """Several attacks, each under its own threat: of one norm, or a union of norms (Tramer & Boneh, NeurIPS 2019).

    An image that one attack breaks inside that attack's own threat is spared the rest. Raises ConfigError where
    there is no attack, or one that names no threat.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        nameless = [type(each).__name__ for each in self.attacks if not isinstance(_own(each), ThreatModel)]
        if self.attacks and not nameless:
            return
        raise ConfigError(
            "attacks of WorstOf",
            expected="at least one attack, each with a threat of its own",
            got=", ".join(nameless) or "none",
            remedy="give attacks that were built with threat=ThreatModel(...)",
        )

    @property
    def threats(self) -> tuple[ThreatModel, ...]:
        """Each attack's threat."""
        return tuple(threat_of(attack) for attack in self.attacks)

    @property
    def threat(self) -> ThreatModel | ThreatUnion:
        """The one threat of all attacks, or the union of theirs."""
        distinct = tuple(dict.fromkeys(self.threats))
        return distinct[0] if len(distinct) == 1 else ThreatUnion(distinct)

    @property
    def needs_module(self) -> bool:
        """Whether one of the attacks works on the module itself."""
        return any(getattr(attack, "needs_module", False) for attack in self.attacks)

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,); x where no attack succeeds."""
        worst = x.clone()
        left = torch.arange(len(x), device=x.device)
        for number in range(len(self.attacks)):
            if not len(left):
                break
            found, broken = self._try(number, model, x[left], y[left], draws.select(left))
            worst[left] = torch.where(per_image(broken, x), found, x[left])
            left = left[~broken]
        return worst

    def survives(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return which images withstand which attack, each inside its own threat: (A, N) bool, A attacks.

        An image on which the model errs withstands none. `survives(...).all(dim=0)` is robustness to the union.
        """
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
        broken = [self._try(number, model, x, y, draws)[1] for number in range(len(self.attacks))]
        return ~torch.stack(broken) & right

    def _try(self, number: int, model: Model, x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        attack = self.attacks[number]
        with torch.enable_grad():
            found = attack(model, x, y, draws=draws.at("member", number)).detach().to(x)
        inside = ~threat_of(attack).violates(found, x)
        with torch.no_grad():
            return found, inside & (model(found).argmax(dim=1) != y)


def _own(attack: Attack) -> object:
    return getattr(attack, "threat", None)
