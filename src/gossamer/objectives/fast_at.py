"""Fast adversarial training: one gradient step an image (Wong et al., ICLR 2020; de Jorge et al., NeurIPS 2022)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from torch import Tensor, nn

from gossamer.attacks.crafting import BatchNormMode
from gossamer.attacks.fast import NoisyFGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.steps import WHOLE, OfEps, StepRule
from gossamer.errors import ConfigError
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State

Variant: TypeAlias = Literal["random-start", "noise"]

_WONG = OfEps(1.25)


@dataclass(frozen=True, kw_only=True)
class FastAT:
    """mean CE(f(x_adv), y), x_adv by one step.

    variant: `random-start`, x + U(-eps, eps), a step of 1.25 eps, clipped to ball and box (Wong et al.); `noise`,
    x + U(-2 eps, 2 eps), a step of eps, clipped to the box alone (N-FGSM, de Jorge et al.). Both are published, and by
    default crafted here, with batch norm in training mode.
    """

    variant: Variant = "random-start"

    batch_norm: ClassVar[BatchNormMode] = "train"

    def __post_init__(self) -> None:
        if self.variant not in get_args(Variant):
            raise ConfigError(
                "objective.variant",
                expected=" or ".join(get_args(Variant)),
                got=repr(self.variant),
                remedy="write noise for N-FGSM",
            )

    def default_attack(self, threat: ThreatModel, *, steps: int = 1, step: StepRule | None = None) -> PGD | NoisyFGSM:
        """Return the variant's single step; `steps` above 1 is for `random-start` alone. Raises ConfigError."""
        if self.variant == "random-start":
            return PGD(threat=threat, steps=steps, step=step or _WONG)
        if steps != 1:
            raise ConfigError("attack.steps", expected="1 with variant noise", got=steps, remedy="leave it out")
        return NoisyFGSM(threat=threat, step=step or WHOLE)

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
        return attack_inputs("fast-at", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W)."""
        return Adversarial().loss(model, batch, x_adv, draws=draws)
