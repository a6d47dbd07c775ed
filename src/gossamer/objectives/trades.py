"""TRADES (Zhang et al., ICML 2019): accuracy on clean images, and agreement between clean and adversarial ones."""

from dataclasses import dataclass

from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart
from gossamer.attacks.steps import QUARTER, StepRule
from gossamer.errors import ConfigError
from gossamer.losses import cross_entropy, kl
from gossamer.objectives.checks import check_weight
from gossamer.objectives.clean_pass import clean_pass
from gossamer.objectives.crafted import attack_inputs
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack, Batch, Loss, State


@dataclass(frozen=True, kw_only=True)
class Trades:
    """mean CE(f(x), y) + beta * mean KL(p(x) || p(x_adv)), with gradients through both predictions.

    Two forwards, clean then adversarial, each with its own batch statistics (Ozdenizci & Legenstein, ICML 2021);
    the authors' code makes a third, the clean one twice, and HYDRA's a fourth: clean_pass is how many more clean
    forwards come first (true: one), which move batch-norm statistics alone.
    """

    beta: float = 6.0
    clean_pass: bool | int = False

    def __post_init__(self) -> None:
        check_weight("objective.beta", self.beta, "write 6, as published")
        if self.clean_pass < 0:
            raise ConfigError(
                "objective.clean_pass", expected="a number of forwards, or true", got=self.clean_pass, remedy="write 1"
            )

    def default_attack(self, threat: ThreatModel, *, steps: int = 10, step: StepRule = QUARTER) -> PGD:
        """Return PGD-10 on KL(p(x) || p(x_adv)) from x + 0.001 N(0, 1), in steps of eps/4.

        Published: 0.007 at eps 0.031 (Zhang et al.), 2/255 at 8/255 (Ozdenizci & Legenstein).
        """
        return PGD(threat=threat, steps=steps, step=step, start=GaussianStart(0.001), loss="kl")

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
        return attack_inputs("trades", attack, model, batch.x, batch.y, draws=draws)

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor, *, draws: Draws) -> Loss:
        """Return the loss; parts: natural and adversarial, cross-entropies; consistency, the mean KL before beta.

        The second is no term of the loss: it is what every objective calls the adversarial loss.
        """
        for _ in range(self.clean_pass):
            clean_pass(model, batch.x)
        clean, attacked = model(batch.x), model(x_adv)
        natural = cross_entropy(clean, batch.y).mean()
        consistency = kl(clean, attacked).mean()
        adversarial = cross_entropy(attacked.detach(), batch.y).mean()
        return Loss(
            total=natural + self.beta * consistency,
            parts={"natural": natural.detach(), "adversarial": adversarial, "consistency": consistency.detach()},
            logits={"natural": clean.detach(), "adversarial": attacked.detach()},
        )
