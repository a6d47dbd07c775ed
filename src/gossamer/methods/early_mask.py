"""A mask chosen before training, or a few epochs into it: is it as good as rewinding's?

The question that Gilles (MIT, 2020) leaves open: SNIP (Lee et al., ICLR 2019), GraSP (Wang et al., ICLR 2020) and
SynFlow (Tanaka et al., NeurIPS 2020) under an adversarial loss, beside pruning with rewinding to the same epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from gossamer.errors import ConfigError
from gossamer.methods.early_scores import early_score, enough_batches
from gossamer.methods.rewinding import TRAIN, round_name
from gossamer.methods.stretches import beginning
from gossamer.objectives.stored import Stored
from gossamer.sparsity import HeldMask
from gossamer.sparsity.budgets import check_density
from gossamer.sparsity.choose import best_of_all
from gossamer.sparsity.masks import apply_masks
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase, epoch_state
from gossamer.training.scene import Scene

CHOOSE = "choose"


@dataclass(frozen=True, kw_only=True)
class EarlyMask:
    """Keep int(density * N) weights of the whole network, those of the highest early score.

    score: snip, grasp, synflow or another package's "package.module:factory" (`gossamer.methods.early_scores`); the
    first two read the gradient of the recipe's own loss on batches attacked as in training. at_epoch: scores are taken
    after so many epochs of the recipe's own training, 0 for the initial weights; training then starts from those
    weights with the whole schedule, as rewinding does from the same ones. batches: how many are scored; None: ten
    images a class.
    """

    density: float
    score: str = "snip"
    at_epoch: int = 0
    batches: int | None = None

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        early_score(self.score)
        if self.at_epoch < 0:
            raise ConfigError(
                "method.at_epoch",
                expected="an epoch, 0 for the initial weights",
                got=self.at_epoch,
                remedy="write 0, or the epoch that rewinding goes back to",
            )
        if self.batches is not None and self.batches < 1:
            raise ConfigError("method.batches", expected="at least 1", got=self.batches, remedy="leave it out")

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 1e-4, as for rewinding, which it is compared with."""
        return OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return training up to the epoch (where asked for), scoring, and training under the mask.

        The first epochs are those of rewinding's dense training, to the bit, and what follows has the batches and
        attacks of its first round, so that masks alone differ. Raises ConfigError, also for perturbations that only
        training moves: before it nobody is attacked.
        """
        if isinstance(base.objective, Stored) and base.objective.update == "backward":
            raise ConfigError(
                "objective.update",
                expected="attack, with method early-mask, which scores weights on attacked images before training",
                got="backward",
                remedy="write update: attack, or choose another objective",
            )
        if self.at_epoch >= base.epochs:
            raise ConfigError(
                "method.at_epoch",
                expected=f"an epoch before the end of training ({base.epochs} epochs)",
                got=self.at_epoch,
                remedy="score earlier, or train longer",
            )
        choose = replace(base, name=CHOOSE, epochs=0, start=self._choose, probes=(), select=None, average=None)
        masked = replace(base, start=FromState(f"{CHOOSE}.end"), sparsifier=HeldMask)
        if self.at_epoch == 0:
            return (choose, masked)
        dense = replace(beginning(base, self.at_epoch), name=TRAIN, publish=(*base.publish, self.at_epoch))
        return (dense, choose, replace(masked, name=round_name(1)))

    def _choose(self, model: nn.Module, scene: Scene) -> None:
        if self.at_epoch:
            FromState(epoch_state(TRAIN, self.at_epoch))(model, scene)
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        batches = self.batches or enough_batches(scene)
        scores = early_score(self.score)(model, scene, self.density, batches)
        # Scoring moves batch-norm statistics; training starts from those of the epoch.
        model.load_state_dict(before)
        total = sum(score.numel() for score in scores.values())
        apply_masks(model, best_of_all(scores, int(self.density * total)))
