"""Gaussian noise augmentation (Cohen et al., ICML 2019): what makes certificates of randomised smoothing mean much."""

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.losses import cross_entropy
from gossamer.objectives.checks import check_weight
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """mean CE(f(x + sigma * N(0, 1)), y); sigma in pixel units of [0, 1].

    As in certification, noisy images are not clipped to [0, 1]. The accuracy reported as clean while it trains is that
    on noisy images.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        check_weight("objective.sigma", self.sigma, "write 0.25, or 0.5 to certify larger radii")

    def default_attack(self, threat: ThreatModel, *, steps: int = 10, step: StepRule = QUARTER) -> None:
        """Return None: nothing is attacked."""
        return

    def craft(
        self,
        model: nn.Module,
        batch: Batch,
        attack: Attack | None,
        state: State,
        *,
        draws: Draws,
    ) -> Tensor:
        """Return batch.x with noise: (N, C, H, W), not clipped."""
        noise = draws.at("noise").normal(batch.x.shape, device=batch.x.device)
        return batch.x + self.sigma * noise.to(batch.x.dtype)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the mean cross-entropy of x_adv: (N, C, H, W), the noisy images."""
        logits = model(x_adv)
        total = cross_entropy(logits, batch.y).mean()
        return Loss(total=total, parts={"natural": total.detach()}, logits={"natural": logits.detach()})
