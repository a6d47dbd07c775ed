"""Robust to several threats at once: train on the worst of them, or on all (Tramer & Boneh, NeurIPS 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor, nn

from gossamer.attacks.goals import Labels, LossName, make_goal
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.attacks.worst import ThreatUnion
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.protocol import WithDefaultAttack
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Attack, Batch, Loss, Objective, State

Combine: TypeAlias = Literal["max", "average"]

# The customary union on CIFAR-10 (Maini et al., ICML 2020, with 8/255 for their 0.03).
_CIFAR10 = (ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5), ThreatModel("l1", 12.0))


@dataclass(frozen=True, kw_only=True)
class Several:
    """Any base objective under several threats.

    combine: `max`, each image is trained on the one example, of one for each threat, whose attack loss is highest;
    `average`, the mean of the base's loss over the threats, each with forwards of its own. The attack is the base's,
    with its threat replaced by each of `threats` in turn; a step that is a share of eps follows.
    """

    threats: tuple[ThreatModel, ...] = _CIFAR10
    combine: Combine = "max"
    base: Objective = field(default_factory=Adversarial)

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise ConfigError(
                "objective.combine", expected="max or average", got=repr(self.combine), remedy="choose one of the two"
            )
        if not self.threats:
            raise ConfigError(
                "objective.threats", expected="at least one threat", got="none", remedy="write [linf:8/255, l2:0.5]"
            )

    @property
    def union(self) -> ThreatUnion:
        """All that one of the threats allows, to judge by."""
        return ThreatUnion(self.threats)

    def default_attack(self, threat: ThreatModel, *, steps: int = 10, step: StepRule = QUARTER) -> Attack | None:
        """Return the base's own attack; its threat is replaced at each use."""
        if not isinstance(self.base, WithDefaultAttack):
            return None
        return self.base.default_attack(threat, steps=steps, step=step)

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return x_adv: (N, C, H, W) with `max`, the threats' examples one after the other: (T N, C, H, W) otherwise.

        Raises ConfigError without an attack, and for one whose threat cannot be replaced.
        """
        found = [
            self.base.craft(model, batch, _under(attack, threat), state, draws=draws.at("threat", number))
            for number, threat in enumerate(self.threats)
        ]
        return torch.cat(found) if self.combine == "average" else _worst(model, batch, attack, found)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the base's loss of x_adv, or its mean over the threats: of what `craft` gave."""
        if self.combine == "max":
            return self.base.loss(model, batch, x_adv, draws=draws)
        losses = [self.base.loss(model, batch, each, draws=draws) for each in x_adv.split(len(batch.x))]
        totals = torch.stack([each.total for each in losses])
        positions = torch.arange(len(batch.y), device=batch.y.device)
        return Loss(
            total=totals.mean(),
            parts={name: torch.stack([each.parts[name] for each in losses]).mean() for name in losses[0].parts},
            logits=_joined([each.logits for each in losses]),
            rows=dict.fromkeys(losses[0].logits, positions.repeat(len(losses))),
        )


def _under(attack: Attack | None, threat: ThreatModel) -> Attack | None:
    if attack is None:
        return None
    if not is_dataclass(attack) or not hasattr(attack, "threat"):
        raise ConfigError(
            "objective several",
            expected="an attack that has a threat to replace",
            got=type(attack).__name__,
            remedy="name an attack such as pgd",
        )
    return cast("Attack", replace(cast("Any", attack), threat=threat))


@torch.no_grad()
def _worst(model: nn.Module, batch: Batch, attack: Attack | None, found: list[Tensor]) -> Tensor:
    loss: LossName = getattr(attack, "loss", "ce")
    labels: Labels = getattr(attack, "labels", "true")
    goal = make_goal(model, batch.x, batch.y, loss=loss, labels=labels, target=None)
    worst, highest = found[0], goal.value(model(found[0]))
    for each in found[1:]:
        value = goal.value(model(each))
        worst = torch.where(per_image(value > highest, each), each, worst)
        highest = torch.maximum(highest, value)
    return worst


def _joined(logits: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([each[name] for each in logits]) for name in logits[0]}
