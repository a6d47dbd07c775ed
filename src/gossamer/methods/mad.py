"""MAD (Lee et al., CVPR 2022): pretrain, train adversarially, cut what the adversarial loss misses least, fine-tune."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from gossamer.attacks.pgd import PGD
from gossamer.attacks.starts import GaussianStart
from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.drawing import clean
from gossamer.objectives.adversarial import Adversarial
from gossamer.objectives.checks import check_weight
from gossamer.objectives.mart import Mart
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.mad_saliency import HeldWithBiases, Removes, controlled, cut, saliency
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase
from gossamer.training.scene import Scene
from gossamer.types import Attack


@dataclass(frozen=True, kw_only=True)
class CutBySaliency:
    """Start from a trained network, score its weights on attacked training batches, and set the least salient to 0."""

    weights: str
    density: float
    removes: Removes
    batches: int | None
    steps: int

    def __call__(self, model: nn.Module, scene: Scene) -> None:
        """Set the weights."""
        FromState(self.weights)(model, scene)
        scores = saliency(model.eval(), self._attacked(model, scene), steps=self.steps)
        cut(model, controlled(scores, self.removes, scene.draws.at("chance")), self.density)

    def _attacked(self, model: nn.Module, scene: Scene) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, x_adv in scene.crafted(model, "saliency", limit=self.batches):
            yield x_adv, batch.y


@dataclass(frozen=True, kw_only=True)
class MAD:
    """Four phases: `pretrain` on clean images, `adversarial` with the recipe's objective, `cut`, `finetune`.

    density: convolutions share it globally by signed saliency; linear layers keep it row by row. removes: `least`
    salient, or the controls `most` and `random`. finetune: `mart` with weight mart_beta, as the released code has it,
    or the `recipe`'s objective, as others report it. pretrain_epochs: None for 10/3 of the recipe's (published: 200
    beside 60 and 60); finetune_epochs: None for the recipe's; finetune_lr: learning rate as a share of the recipe's.
    scoring_batches: None for one pass over the training set; mask_steps: of the masks on every batch.
    """

    density: float
    removes: Removes = "least"
    finetune: Literal["mart", "recipe"] = "mart"
    mart_beta: float = 0.5
    pretrain_epochs: int | None = None
    finetune_epochs: int | None = None
    finetune_lr: float = 1.0
    scoring_batches: int | None = None
    mask_steps: int = 20

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        check_weight("method.mart_beta", self.mart_beta, "write 0.5, as in the released code")
        check_epochs("method.pretrain_epochs", self.pretrain_epochs)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.finetune_lr", self.finetune_lr)
        if self.scoring_batches is not None and self.scoring_batches < 1:
            raise ConfigError(
                "method.scoring_batches",
                expected="at least 1",
                got=self.scoring_batches,
                remedy="leave it out for the whole training set",
            )
        if self.mask_steps < 1:
            raise ConfigError(
                "method.mask_steps", expected="at least 1", got=self.mask_steps, remedy="write 20, as published"
            )

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD: lr 0.1, momentum 0.9, coupled decay 2e-4, as published."""
        return OptimizerSpec(weight_decay=2e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the four phases; raises ConfigError without a training attack, which the scores need."""
        if base.attack is None:
            raise ConfigError(
                "attack",
                expected="a training attack: MAD scores weights on attacked images",
                got="none",
                remedy="name one, such as pgd, or choose an objective that brings its own",
            )
        pretrain = replace(
            clean(base), name="pretrain", epochs=self.pretrain_epochs or max(1, round(base.epochs * 10 / 3))
        )
        adversarial = replace(base, name="adversarial", start=FromState("pretrain.end"))
        start = CutBySaliency(
            weights="adversarial.end",
            density=self.density,
            removes=self.removes,
            batches=self.scoring_batches,
            steps=self.mask_steps,
        )
        scoring = replace(
            base,
            name="cut",
            epochs=0,
            objective=Adversarial(),
            attack_bn="eval",
            equip=None,
            adapt=None,
            replays=1,
            start=start,
        )
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.finetune_lr),
            sparsifier=HeldWithBiases,
            start=FromState("cut.end"),
        )
        if self.finetune == "mart":
            attack = as_in_mart(base.attack)
            finetune = replace(
                finetune, objective=Mart(beta=self.mart_beta), attack=attack, attack_bn="eval", equip=None, replays=1
            )
        return (pretrain, adversarial, scoring, finetune)


def as_in_mart(attack: Attack) -> Attack:
    """Return PGD as MART runs it, on the cross-entropy from x + 0.001 N(0, 1); any other attack as it is."""
    return replace(attack, start=GaussianStart(0.001), loss="ce") if isinstance(attack, PGD) else attack
