"""How do several attacks act as one? One after the other, each on the images that the ones before left standing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from gossamer.attacks.goals import SEED_ZERO
from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Attack, Model

Member: TypeAlias = tuple[str, Attack]


@runtime_checkable
class Ensemble(Protocol):
    """An attack that is several, by name and in order; each is tried on what the ones before left standing."""

    @property
    def members(self) -> tuple[Member, ...]:
        """The attacks by name, in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Attacks in order, by name; an image that one of them breaks is spared the rest.

    Which images fall depends on the members alone, not on their order. Draws of a member are those of its name.
    Raises ConfigError where there is no member or two of one name.
    """

    threat: ThreatModel
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.members]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                "members of a cascade",
                expected="at least one attack, each of its own name",
                got=", ".join(names) or "none",
                remedy="give pairs of a name and an attack",
            )

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,): the first point at which the model errs."""
        return attack_in_order(self.members, self.threat, model, x, y, draws)


def attack_in_order(
    members: Sequence[Member], threat: ThreatModel, model: Model, x: Tensor, y: Tensor, draws: Draws
) -> Tensor:
    """Return the first admissible point at which the model errs for each image, x where there is none.

    x: (N, C, H, W) in [0, 1]; y: (N,).
    """
    worst = x.clone()
    left = torch.arange(len(x), device=x.device)
    for name, attack in members:
        if not len(left):
            break
        found = attack(model, x[left], y[left], draws=draws.select(left).at(name))
        with torch.no_grad():
            broken = model(found).argmax(dim=1) != y[left]
        broken &= ~threat.violates(found, x[left])
        worst[left] = torch.where(per_image(broken, x), found, worst[left])
        left = left[~broken]
    return worst
